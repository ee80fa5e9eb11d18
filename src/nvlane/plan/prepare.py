"""`nvlane host setup`: hugepages and drivers without a machine. Pure: what is wanted and facts make a plan."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Facts, PciFunction
from nvlane.model.pci import PciAddress
from nvlane.model.size import format_size, parse_size
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Plan, Refusal
from nvlane.plan.step import BindDriver, LoadModule, MakeDirectory, MountHugetlbfs, ReserveHugepages, Step


class UserspaceDriver(StrEnum):
    VFIO_PCI = "vfio-pci"
    UIO_PCI_GENERIC = "uio_pci_generic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """`pages` of `page_size` bytes: how many the pools shall have in all, on `node`, or shared out over all nodes.

    `drives` as a spec names them; `all_idle` takes every drive that nothing uses, and leaves the others.
    """

    pages: int = 0
    page_size: int = 0
    node: int | None = None
    drives: tuple[str, ...] = ()
    all_idle: bool = False
    driver: UserspaceDriver = UserspaceDriver.VFIO_PCI


def prepare(wanted: Wanted, facts: Facts) -> Plan:
    """What `nvlane host setup` would do, or why not."""
    denied = refuse.not_root(None, facts, "preparing the host")
    refusals: list[Refusal] = [denied] if denied else []
    chosen, notes = _chosen(wanted, facts, refusals)
    functions = _with_siblings(chosen, facts)
    for function in functions:
        refusals += _drive_refusals(function, facts, wanted.driver)
    reserve = tuple(_reserve(wanted, facts, refusals))
    if refusals:
        return Plan(machine=None, refusals=tuple(dict.fromkeys(refusals)))
    steps: tuple[Step, ...] = (*reserve, *_mounts(wanted, facts), *_binds(functions, facts, wanted.driver))
    return Plan(machine=None, notes=tuple(notes), steps=steps)


def _chosen(wanted: Wanted, facts: Facts, refusals: list[Refusal]) -> tuple[list[PciFunction], list[Note]]:
    """The functions that were asked for, and what a person should know of them."""
    chosen: dict[PciAddress, PciFunction] = {}
    notes: list[Note] = []
    for text in wanted.drives:
        found = find_drive(facts, text)
        if isinstance(found, Located):
            chosen[found.function.address] = found.function
        else:
            refusals.append(Refusal(code="no-drive", lane=None, reason=found.reason, remedy=found.remedy))
    for drive in facts.drives if wanted.all_idle else ():
        function = facts.function(drive.address)
        if function is None:
            continue
        if blockers := _drive_refusals(function, facts, wanted.driver):
            notes.append(Note(lane=None, text=f"{drive.address} ({drive.serial}) is left: {blockers[0].reason}"))
        else:
            chosen[function.address] = function
    for address in chosen:
        taken = facts.drive(address)
        for content in taken.contents if taken else ():
            notes.append(Note(lane=None, text=f"{content.device} holds {content.what}; it is not written to"))
    return list(chosen.values()), notes


def _with_siblings(chosen: list[PciFunction], facts: Facts) -> list[PciFunction]:
    """The chosen functions, and the NVMe siblings of their IOMMU groups: a group goes to VFIO whole."""
    every = {function.address: function for function in chosen}
    for function in chosen:
        for sibling in facts.group(function.iommu_group) if function.iommu_group is not None else ():
            if sibling.is_nvme:
                every.setdefault(sibling.address, sibling)
    return list(every.values())


def _drive_refusals(function: PciFunction, facts: Facts, driver: UserspaceDriver) -> tuple[Refusal, ...]:
    drive = facts.drive(function.address)
    what = f"the drive {function.address}" + (f" (serial {drive.serial})" if drive and drive.serial else "")
    reasons: list[Refusal | None] = [*refuse.uses(None, what, drive.uses if drive else ())]
    if driver is UserspaceDriver.VFIO_PCI:
        reasons += [refuse.no_vfio(None, facts), refuse.no_iommu(None, facts, function)]
    elif not (facts.vfio and facts.vfio.uio_available):
        reasons.append(
            Refusal(
                code="no-uio",
                lane=None,
                reason=f"the kernel {facts.kernel} has no uio_pci_generic",
                evidence=("it is neither built in nor found by modprobe",),
                remedy="install the modules of this kernel, or use vfio-pci, which needs an IOMMU",
            )
        )
    reasons.append(refuse.functions_enabled(None, function, "take another drive"))
    siblings = facts.group(function.iommu_group) if function.iommu_group is not None else ()
    for sibling in siblings:
        if sibling.address != function.address:
            reasons += refuse.busy_sibling(None, sibling, facts.drive(sibling.address))
    return tuple(reason for reason in reasons if reason is not None)


def _reserve(wanted: Wanted, facts: Facts, refusals: list[Refusal]) -> Iterator[Step]:
    if not wanted.pages:
        return
    nodes = [wanted.node] if wanted.node is not None else [node.node for node in facts.nodes] or [0]
    for position, node in enumerate(nodes):
        share = wanted.pages // len(nodes) + (position < wanted.pages % len(nodes))
        pool = next((p for p in facts.hugepages if (p.node, p.page_size) == (node, wanted.page_size)), None)
        more = share - (pool.total if pool else 0)
        if more <= 0:
            continue
        # `hugepages` asks for free pages: as many as there are now, and those that are still to be made.
        asked = more + (pool.free if pool else 0)
        short = refuse.hugepages(None, facts, node=node, page_size=wanted.page_size, pages=asked, why="host setup")
        if short is not None:
            refusals.append(short)
        yield ReserveHugepages(node=node, page_size=wanted.page_size, pages=more)


def _mounts(wanted: Wanted, facts: Facts) -> Iterator[Step]:
    """A hugetlbfs of the page size, for targets that open files there; none where one is mounted already."""
    if not wanted.pages or any(_page_size(mount.options) == wanted.page_size for mount in facts.hugetlbfs):
        return
    target = f"{facts.runtime_dir}/hugepages-{format_size(wanted.page_size)}"
    yield MakeDirectory(path=facts.runtime_dir, mode=0o755)
    yield MakeDirectory(path=target)
    yield MountHugetlbfs(target=target, page_size=wanted.page_size)


def _page_size(options: str) -> int:
    found = re.search(r"(?:^|,)pagesize=(\w+)", options)
    return parse_size(found[1]) if found else 0


def _binds(functions: list[PciFunction], facts: Facts, driver: UserspaceDriver) -> Iterator[Step]:
    moving = [function for function in functions if function.driver != driver]
    modules = ("vfio-pci", "vfio_iommu_type1") if driver is UserspaceDriver.VFIO_PCI else (str(driver),)
    loaded = {module.replace("-", "_") for module in facts.modules}
    for name in modules if moving else ():
        if name.replace("-", "_") not in loaded:
            yield LoadModule(name=name)
    for function in moving:
        drive = facts.drive(function.address)
        yield BindDriver(
            address=function.address,
            driver=str(driver),
            expect_driver=function.driver,
            expect_override=function.driver_override,
            expect_serial=drive.serial if drive and not drive.remembered else "",
            group=function.iommu_group,
            nvme=function.is_nvme,
        )
