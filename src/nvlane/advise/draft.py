"""The spec of a way on one host: text that a person can keep, and what it must be planned against."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from nvlane.advise import ways
from nvlane.advise.cell import Way
from nvlane.advise.wish import DISK_SIZE, MEMORY_SIZE, Wish
from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Drive, Facts, PathFacts
from nvlane.lanes.subjects import paths
from nvlane.model.fabrics import UUID_NQN
from nvlane.model.size import format_size
from nvlane.spec.document import Spec
from nvlane.spec.lane import LaneKind
from nvlane.spec.reader import parse_spec

#: A Target that nobody named: an address for documentation (RFC 5737). Whoever takes the spec writes the true one.
PLACEHOLDER_ADDRESS = "192.0.2.1"
PLACEHOLDER_NQN = f"{UUID_NQN}00000000-0000-0000-0000-000000000000"


#: What a machine boots from where nobody says it and nvlane's own probe guest cannot be made.
UNNAMED_IMAGE = "boot.qcow2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A spec as text and as read from it. `drive` is what of this host's drives it takes, and `holds` what is on that;
    `edit` says what to look at in it, and `unfinished` that it must be changed before it is true."""

    text: str
    spec: Spec
    drive: str = ""
    holds: str = ""
    edit: str = ""
    unfinished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Why a way cannot even be written down for this wish on this host, and what would help."""

    reason: str
    remedy: str


def drafts(way: Way, wish: Wish, facts: Facts) -> tuple[Draft, ...] | Unfit:
    """Every spec of a way that is worth a try here, the best first: one a drive, where it takes one."""
    tables = _tables(way, wish, facts)
    if isinstance(tables, Unfit):
        return tables
    boot = wish.image or ("" if facts.probe_initrd else UNNAMED_IMAGE)
    named = dataclasses.replace(wish, image=boot)
    return tuple(_draft({"kind": str(way.kind), **keys}, named, drive, edit) for keys, drive, edit in tables)


_Keys = Mapping[str, object]
_Table = tuple[_Keys, Drive | None, str]


def _tables(way: Way, wish: Wish, facts: Facts) -> list[_Table] | Unfit:
    match way.kind:
        case LaneKind.PASSTHROUGH | LaneKind.USERSPACE:
            return _on_drive(way, wish, facts)
        case LaneKind.VHOST_USER if way is ways.VHOST_DRIVE:
            return _on_drive(way, wish, facts)
        case LaneKind.EMULATED | LaneKind.VHOST_USER:
            return _on_file(way, wish, facts)
        case LaneKind.NVDIMM:
            return _memory(way, wish, facts)
        case LaneKind.FABRICS:
            return _fabrics(wish)
        case _:
            assert_never(way.kind)


def _on_drive(way: Way, wish: Wish, facts: Facts) -> list[_Table] | Unfit:
    keys: dict[str, object] = {}
    if way is ways.USERSPACE_NVME:
        keys["frontend"] = "nvme"
    if wish.drive:
        named = _named(wish.drive, facts)
        if isinstance(named, Unfit):
            return named
        if way is ways.PASSTHROUGH_VF and "/vf" not in wish.drive:
            return [({"drive": f"{wish.drive}/vf0"}, named.drive, "")]
        if way is not ways.PASSTHROUGH_VF and "/vf" in wish.drive and way is not ways.PASSTHROUGH:
            return Unfit(reason="it takes a whole drive", remedy=f"name {wish.drive.partition('/vf')[0]}")
        return [({"drive": wish.drive, **keys}, named.drive, "")]
    if way is ways.PASSTHROUGH_VF:
        return _functions(facts)
    # A drive that holds nothing first: nobody wants to be advised to overwrite what is there.
    real = [drive for drive in facts.drives if not _is_virtual(drive, facts)]
    found = sorted(real, key=lambda drive: (bool(drive.uses), bool(drive.contents)))
    if not found:
        return Unfit(reason="this host shows no NVMe drive on PCI", remedy="nvlane lab up makes a host that has some")
    return [({"drive": _name(drive), **keys}, drive, "") for drive in found]


def _functions(facts: Facts) -> list[_Table] | Unfit:
    able = [f for f in facts.functions if f.is_nvme and f.sriov_total]
    if not able:
        return Unfit(
            reason="no drive here has virtual functions (SR-IOV)", remedy="take a whole drive, or one that has them"
        )
    found = [(facts.drive(f.address) or Drive(address=f.address), f.sriov_enabled) for f in able]
    best = sorted(found, key=lambda one: -one[1])
    return [({"drive": f"{_name(drive)}/vf0"}, drive, "") for drive, _ in best]


def _is_virtual(drive: Drive, facts: Facts) -> bool:
    function = facts.function(drive.address)
    return function is not None and function.physical_function is not None


def _name(drive: Drive) -> str:
    """By its serial, which survives renumbering, where it has one that a spec can hold."""
    good = drive.serial and drive.serial == drive.serial.strip() and drive.serial.isascii()
    return f"serial:{drive.serial}" if good and "/" not in drive.serial else str(drive.address)


def _named(text: str, facts: Facts) -> Located | Unfit:
    found = find_drive(facts, text.partition("/vf")[0])
    return found if isinstance(found, Located) else Unfit(reason=found.reason, remedy=found.remedy)


def _on_file(way: Way, wish: Wish, facts: Facts) -> list[_Table] | Unfit:
    drive, source, edit = None, dict[str, object](), ""
    if wish.drive:
        named = _named(wish.drive, facts)
        if isinstance(named, Unfit):
            return named
        drive = named.drive
        if not drive.namespaces or "/vf" in wish.drive:
            return Unfit(
                reason=f"the host's nvme driver shows no namespace of {wish.drive}",
                remedy="give it back to that driver: nvlane host reset",
            )
        name = drive.namespaces[0].name
        source = {"device" if way is ways.EMULATED else "file": f"/dev/{name}"}
        edit = f"the kernel may call {name} otherwise after a boot: nvlane devices says how"
    elif way is ways.EMULATED:
        source = {"image": "data.qcow2", "size": format_size(wish.size or DISK_SIZE)}
    else:
        source = {"file": "data.raw", "size": format_size(wish.size or DISK_SIZE)}
    if way is ways.EMULATED:
        return [({"namespaces": [source]}, drive, edit)]
    engine = {"engine": "qemu-storage-daemon"} if way is ways.VHOST_DAEMON else {}
    return [({**engine, **source}, drive, edit)]


def _memory(way: Way, wish: Wish, facts: Facts) -> list[_Table] | Unfit:
    if wish.drive:
        return Unfit(reason="it is memory, and no drive", remedy="leave --drive out")
    size = {"size": format_size(wish.size or MEMORY_SIZE)}
    if way is ways.NVDIMM:
        return [({"backing": "memory", **size}, None, "")]
    if way is ways.VIRTIO_PMEM:
        return [({"backing": "file", "path": "memory.raw", **size}, None, "")]
    if not facts.dax_devices:
        return Unfit(
            reason="this host has no DAX device", remedy="ndctl create-namespace --mode=devdax makes one of an NVDIMM"
        )
    return [({"backing": "dax", "path": device.path}, None, "") for device in facts.dax_devices]


def _fabrics(wish: Wish) -> list[_Table] | Unfit:
    if wish.drive:
        return Unfit(reason="its drive is in another host", remedy="leave --drive out")
    named = wish.address and wish.nqn
    edit = "" if named else "write the Target's address and the subsystem's NQN (or give --address and --nqn)"
    keys = {"address": wish.address or PLACEHOLDER_ADDRESS, "nqn": wish.nqn or PLACEHOLDER_NQN}
    return [(keys, None, edit)]


def _draft(keys: _Keys, wish: Wish, drive: Drive | None, edit: str) -> Draft:
    text = "\n".join(_lines(keys, wish, edit)) + "\n"
    spec = parse_spec(text, "", wish.directory)
    holds = ", ".join(f"{content.what} on {content.device}" for content in drive.contents) if drive else ""
    taken = str(keys.get("drive", wish.drive if drive else ""))
    unfinished = PLACEHOLDER_ADDRESS in text or PLACEHOLDER_NQN in text
    return Draft(text=text, spec=spec, drive=taken, holds=holds, edit=edit, unfinished=unfinished)


def _lines(keys: _Keys, wish: Wish, edit: str) -> Iterator[str]:
    yield "[machine]"
    yield f"name = {_toml(wish.machine)}"
    if wish.image == UNNAMED_IMAGE:
        yield "# name what it boots from: nvlane's own probe guest cannot be made on this host"
    if wish.image:
        yield f"image = {_toml(wish.image)}"
    yield ""
    if edit:
        yield f"# {edit}"
    yield "[[lane]]"
    yield from (f"{key} = {_toml(value)}" for key, value in keys.items())


def _toml(value: object) -> str:
    """Text, numbers, tables and lists as TOML: its basic strings are escaped as JSON's are (TOML 1.0)."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def room_for(spec: Spec, facts: Facts) -> Facts:
    """The facts, told of the paths of a spec: what is booted is there, a drive's namespace is the device that the
    facts know, and anything else is still to be made in a directory with room."""
    told = {seen.path for seen in facts.paths}
    booted = {spec.machine.image, spec.machine.kernel, spec.machine.initrd}
    more = tuple(_path(path, path in booted, facts) for path in paths(spec) if path not in told)
    return dataclasses.replace(facts, paths=(*facts.paths, *more))


def _path(path: str, booted: bool, facts: Facts) -> PathFacts:
    for drive in facts.drives:
        for namespace in drive.namespaces:
            if path == f"/dev/{namespace.name}":
                uses = tuple(use for use in drive.uses if use.device.startswith(namespace.name))
                size = namespace.size
                return PathFacts(path=path, kind="block", size=size, format="raw", virtual_size=size, uses=uses)
    if booted:
        return PathFacts(path=path, kind="file", filesystem="ext4")
    return PathFacts(path=path, kind="absent", free_space=1 << 62, filesystem="ext4")
