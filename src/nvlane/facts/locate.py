"""Finding the drive that a spec names: by PCI address, by serial, or as a virtual function of one of these."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from nvlane.facts.shape import Drive, Facts, PciFunction
from nvlane.model.pci import PciAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A drive that was found: its PCI function and what is known of it as a drive."""

    function: PciFunction
    drive: Drive


@dataclass(frozen=True, slots=True, kw_only=True)
class NotLocated:
    """Why there is no such drive here, and what there is instead."""

    reason: str
    remedy: str


def find_drive(facts: Facts, text: str) -> Located | NotLocated:
    """'0000:04:00.0', 'serial:S4EV…', or either with '/vf0' for its first virtual function."""
    match = re.fullmatch(r"(.+?)(?:/vf(\d+))?", text)
    name, vf = (match[1], match[2]) if match else (text, None)
    found = _by_serial(facts, name.removeprefix("serial:")) if name.startswith("serial:") else _by_address(facts, name)
    if vf is None or isinstance(found, NotLocated):
        return found
    return _virtual_function(facts, found, int(vf))


def _by_serial(facts: Facts, serial: str) -> Located | NotLocated:
    # Virtual functions report the serial of their controller: a serial means the physical one.
    drives = [d for d in facts.drives if d.serial == serial and not _is_virtual(facts, d)]
    if len(drives) > 1:
        where = ", ".join(str(d.address) for d in drives)
        return NotLocated(
            reason=f"{len(drives)} drives have the serial {serial}: {where}", remedy="give the PCI address"
        )
    function = facts.function(drives[0].address) if drives else None
    if not drives or function is None:
        return NotLocated(reason=f"no drive has the serial {serial}", remedy=_what_there_is(facts, serial))
    return Located(function=function, drive=drives[0])


def _by_address(facts: Facts, text: str) -> Located | NotLocated:
    address = PciAddress.parse(text)
    function = facts.function(address)
    if function is None:
        return NotLocated(reason=f"there is no PCI function {address}", remedy=_what_there_is(facts, text))
    if not function.is_nvme:
        return NotLocated(
            reason=f"{address} is no NVMe controller (class {function.pci_class:06x})",
            remedy=_what_there_is(facts, text),
        )
    return Located(function=function, drive=facts.drive(address) or Drive(address=address))


def _virtual_function(facts: Facts, parent: Located, number: int) -> Located | NotLocated:
    address = parent.function.address
    functions = sorted((f for f in facts.functions if f.physical_function == address), key=lambda f: f.address)
    if number < len(functions):
        function = functions[number]
        return Located(function=function, drive=facts.drive(function.address) or Drive(address=function.address))
    if parent.function.sriov_total == 0:
        return NotLocated(reason=f"{address} has no SR-IOV", remedy="take the whole controller")
    return NotLocated(
        reason=f"{address} has {len(functions)} virtual functions enabled, of {parent.function.sriov_total}",
        remedy=f"enable them: echo {number + 1} > {address.sysfs}/sriov_numvfs, "
        "after 'nvme virt-mgmt' gave them queues",
    )


def _is_virtual(facts: Facts, drive: Drive) -> bool:
    function = facts.function(drive.address)
    return function is not None and function.physical_function is not None


def _what_there_is(facts: Facts, wanted: str) -> str:
    known = [d.serial or str(d.address) for d in facts.drives]
    if not known:
        return "this host shows no NVMe drive; see 'nvlane devices'"
    near = difflib.get_close_matches(wanted, known, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    return f"{guess}there are: {', '.join(known)}"
