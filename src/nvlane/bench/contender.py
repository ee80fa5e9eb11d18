"""The lanes that can be measured on one storage: those that the spec writes, and one of each other kind by default.

Pure: the spec, and for a drive its block node now, make the tables."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nvlane.model.cpus import format_cpus
from nvlane.model.errors import SpecError
from nvlane.model.size import format_size
from nvlane.spec.document import Spec
from nvlane.spec.key import Kind
from nvlane.spec.lane import Emulated, EmulatedNamespace, Lane, LaneKind, Passthrough, Userspace, VhostUser
from nvlane.spec.machine import MemoryBacking
from nvlane.spec.nearest import nearest

#: Kinds that can have the same storage, in the order in which they take their turns.
KINDS: Final = (LaneKind.EMULATED, LaneKind.USERSPACE, LaneKind.VHOST_USER, LaneKind.PASSTHROUGH)
#: Why the others cannot take their turn.
_NOT_COMPARED: Final = {
    LaneKind.NVDIMM: "is memory, and QEMU does not take an NVDIMM out of a guest that runs",
    LaneKind.FABRICS: "is storage of another host, which no other lane of this one reaches",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What is measured: a drive (as the spec names it) and its namespace, or a raw file or block device."""

    drive: str = ""
    namespace: int = 1
    path: str = ""

    @property
    def words(self) -> str:
        return self.drive or self.path


def storage_of(spec: Spec) -> Storage:
    """The one storage of a spec. Raises SpecError when its lanes name none, or several."""
    found = dict.fromkeys(_storage(lane, spec, index) for index, lane in enumerate(spec.lanes))
    if len(found) != 1:
        names = " and ".join(storage.words for storage in found) or "none"
        raise SpecError(
            f"lanes are compared on one drive or file, and this spec names {names}",
            source=spec.source,
            remedy="write one [[lane]] with the drive or file; --lanes chooses the kinds",
        )
    return next(iter(found))


def _storage(lane: Lane, spec: Spec, index: int) -> Storage:
    match lane:
        case Passthrough(drive=drive):
            return Storage(drive=drive)
        case Userspace(drive=drive, namespace=namespace):
            return Storage(drive=drive, namespace=namespace)
        case VhostUser(drive=drive, namespace=namespace) if drive:
            return Storage(drive=drive, namespace=namespace)
        case VhostUser(file=path) if path:
            return Storage(path=path)
        case Emulated(namespaces=(EmulatedNamespace(image=image, device=device, format=format),)) if (
            image or device
        ) and not (format == "qcow2" or image.endswith(".qcow2")):
            return Storage(path=image or device)
        case _:
            raise SpecError(
                "has nothing that another kind of lane could have, too",
                place=f"lane[{index}]",
                source=spec.source,
                remedy="name a drive, or a raw file or block device",
            )


def chosen(spec: Spec, names: Sequence[str]) -> tuple[Lane, ...]:
    """The lanes to measure, each with its name: of `names` (kinds, or names of the spec's lanes), or of all kinds that
    can have this storage. A kind that the spec writes is measured as written. Raises SpecError."""
    storage = storage_of(spec)
    written = {spec.lanes[i].name or str(spec.lanes[i].KIND): spec.lanes[i] for i in range(len(spec.lanes))}
    possible = [kind for kind in KINDS if storage.drive or kind in (LaneKind.EMULATED, LaneKind.VHOST_USER)]
    known: dict[str, Lane] = dict(written)
    for kind in possible:
        if not any(lane.KIND is kind for lane in written.values()):
            known[str(kind)] = _default(kind, storage)
    if not names:
        order = {kind: place for place, kind in enumerate(KINDS)}
        return tuple(
            dataclasses.replace(lane, name=name)
            for name, lane in sorted(known.items(), key=lambda pair: order[LaneKind(pair[1].KIND)])
        )
    lanes: dict[str, Lane] = {}
    for name in names:
        fitting = {key: lane for key, lane in known.items() if name in (key, str(lane.KIND))}
        if name in _NOT_COMPARED and not fitting:
            raise SpecError(
                f"lanes take turns on one storage, and {name} {_NOT_COMPARED[LaneKind(name)]}",
                place="--lanes",
                source=spec.source,
                remedy=f"lanes: {', '.join(known)}; fio in a guest that has the {name} lane measures it alone",
            )
        if not fitting:
            words = f"there is no lane '{name}' for {storage.words}{nearest(name, known)}"
            raise SpecError(words, place="--lanes", source=spec.source, remedy=f"lanes: {', '.join(known)}")
        lanes.update(fitting)
    return tuple(dataclasses.replace(lane, name=name) for name, lane in lanes.items())


def _default(kind: LaneKind, storage: Storage) -> Lane:
    match kind:
        case LaneKind.PASSTHROUGH:
            return Passthrough(drive=storage.drive)
        case LaneKind.USERSPACE:
            return Userspace(drive=storage.drive, namespace=storage.namespace)
        case LaneKind.VHOST_USER if storage.drive:
            return VhostUser(drive=storage.drive, namespace=storage.namespace)
        case LaneKind.VHOST_USER:
            return VhostUser(file=storage.path)
        case _ if storage.path and not storage.path.startswith("/dev/"):
            return Emulated(namespaces=(EmulatedNamespace(image=storage.path, format="raw"),))
        case _:
            # Of a drive, the block node that it has when its turn comes.
            return Emulated(namespaces=(EmulatedNamespace(device=storage.path),))


def at(lane: Lane, node: str, block_size: int = 512) -> Lane:
    """The lane as it is plugged in now: an emulated one on a drive has that drive's block node and its blocks, and no
    lane writes a proof over what is measured."""
    lane = dataclasses.replace(lane, write_proof=False)
    if isinstance(lane, Emulated) and wants_node(lane):
        return dataclasses.replace(lane, namespaces=(EmulatedNamespace(device=node, block_size=block_size),))
    return lane


def wants_node(lane: Lane) -> bool:
    """Whether the lane is on the block node of a drive, which has another name whenever the kernel has it again."""
    return isinstance(lane, Emulated) and not (lane.namespaces[0].device or lane.namespaces[0].image)


def machine_text(spec: Spec, lanes: Sequence[Lane]) -> str:
    """The machine of a spec without lanes, ready to be given each of these while it runs: a target can only serve
    memory that is shared from the start."""
    machine = spec.machine
    shared = any(isinstance(lane, VhostUser) for lane in lanes)
    if shared and machine.memory_backing is MemoryBacking.AUTO:
        machine = dataclasses.replace(machine, memory_backing=MemoryBacking.MEMFD)
    return "\n".join(["[machine]", *(f"{name} = {_toml(value)}" for name, value in _told(machine))]) + "\n"


def table(lane: Lane) -> str:
    """A lane as the TOML table that a person would write: what has its default is left out."""
    lines = [f"{name} = {_toml(value)}" for name, value in _told(lane)]
    return "\n".join(["[[lane]]", f'kind = "{lane.KIND}"', *lines]) + "\n"


def _told(value: Any) -> list[tuple[str, Any]]:
    told = []
    for field in dataclasses.fields(value):
        now = getattr(value, field.name)
        if now != field.default and now is not None:
            told.append((field.name, format_size(now) if field.metadata.get("kind") is Kind.SIZE else now))
    return told


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, enum.Enum):
        return json.dumps(value.value)
    if isinstance(value, frozenset):
        return json.dumps(format_cpus(value))
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if dataclasses.is_dataclass(value):
        return "{ " + ", ".join(f"{name} = {_toml(item)}" for name, item in _told(value)) + " }"
    return json.dumps(value, ensure_ascii=False)
