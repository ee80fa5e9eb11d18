"""Rules over several lanes, and over several specs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nvlane.spec.document import Spec
from nvlane.spec.drive import whole_drive
from nvlane.spec.lane import (
    Emulated,
    Fabrics,
    Filesystem,
    Nvdimm,
    Passthrough,
    PmemNamespace,
    Userspace,
    VhostUser,
)
from nvlane.spec.problem import Problem, Problems

#: A drive that somebody wants: (whose, place, drive).
DriveClaim = tuple[int, str, str]


def lane_names_differ(spec: Spec) -> Problems:
    """Two lanes never have one name. A lane without a name is called by its kind and number: `emulated0`."""
    seen: dict[str, int] = {}
    for index in range(len(spec.lanes)):
        name = spec.lane_id(index)
        first = seen.setdefault(name, index)
        if first != index:
            place = f"lane[{index}].name" if spec.lanes[index].name else f"lane[{first}].name"
            message = f"lane[{first}] and lane[{index}] are both called '{spec.lane_name(index)}'"
            yield Problem(place=place, message=message, remedy="give each lane a name of its own")


def drives_differ(spec: Spec) -> Problems:
    """A drive is given away once: a whole controller and its namespaces go together."""
    for (_, first, _), (_, place, drive) in drive_clashes(drive_claims(spec, 0)):
        message = f"{first.removesuffix('.drive')} has {drive} already"
        remedy = "name another drive; a lane takes the whole controller with all its namespaces"
        yield Problem(place=place, message=message, remedy=remedy)


def drive_claims(spec: Spec, whose: int) -> Iterator[DriveClaim]:
    """The drives that a spec takes from the host."""
    for index, lane in enumerate(spec.lanes):
        if isinstance(lane, Passthrough | Userspace | VhostUser) and lane.drive:
            yield whose, f"lane[{index}].drive", lane.drive


def drive_clashes(claims: Iterable[DriveClaim]) -> Iterator[tuple[DriveClaim, DriveClaim]]:
    """Pairs (first, second) that want the same drive, or a drive and one of its virtual functions."""
    takers: dict[str, DriveClaim] = {}
    functions: dict[str, DriveClaim] = {}
    for claim in claims:
        drive, whole = claim[2], whole_drive(claim[2])
        other = takers.get(drive) or takers.get(whole) or (functions.get(drive) if drive == whole else None)
        if other is not None:
            yield other, claim
        takers.setdefault(drive, claim)
        if drive != whole:
            functions.setdefault(whole, claim)


def files_differ(spec: Spec) -> Problems:
    """A file or block device is given away once, unless every taker only reads it."""
    seen: dict[str, tuple[str, bool]] = {}
    for place, path, read_only in _files(spec):
        first, first_read_only = seen.setdefault(path, (place, read_only))
        if first != place and not (read_only and first_read_only):
            message = f"{first} has {path} already"
            yield Problem(place=place, message=message, remedy="name another file: two writers destroy what is on it")


def namespaces_differ(spec: Spec) -> Problems:
    """A namespace of a fabric is given away once."""
    seen: dict[tuple[str, int], int] = {}
    for index, lane in enumerate(spec.lanes):
        if isinstance(lane, Fabrics):
            first = seen.setdefault((lane.nqn, lane.namespace), index)
            if first != index:
                message = f"lane[{first}] has namespace {lane.namespace} of {lane.nqn} already"
                yield Problem(place=f"lane[{index}].namespace", message=message, remedy="name another namespace")


def _files(spec: Spec) -> Iterator[tuple[str, str, bool]]:
    """(place, path, read only) of everything that QEMU or a target will open."""
    if spec.machine.image:
        yield "machine.image", spec.machine.image, False
    for index, lane in enumerate(spec.lanes):
        place = f"lane[{index}]"
        match lane:
            case Emulated():
                for number, namespace in enumerate(lane.namespaces):
                    for key, path in (("image", namespace.image), ("device", namespace.device)):
                        if path:
                            yield f"{place}.namespaces[{number}].{key}", path, namespace.read_only
                if lane.pmr_file:
                    yield f"{place}.pmr_file", lane.pmr_file, False
            case VhostUser(file=file) if file:
                yield f"{place}.file", file, lane.read_only
            case Nvdimm(path=path) if path:
                yield f"{place}.path", path, lane.read_only
            case _:
                continue


def serials_differ(spec: Spec) -> Problems:
    """Two emulated lanes never have one serial number: it is how a drive is found again in the guest."""
    yield from _distinct(spec, "serial", "a guest finds its drives by their serial numbers: give each its own")


def subsystems_differ(spec: Spec) -> Problems:
    """Two emulated lanes never have one NQN: each makes a subsystem of its own."""
    yield from _distinct(spec, "nqn", "give each subsystem an NQN of its own")


def _distinct(spec: Spec, key: str, remedy: str) -> Problems:
    seen: dict[str, int] = {}
    for index, lane in enumerate(spec.lanes):
        value = getattr(lane, key) if isinstance(lane, Emulated) else ""
        if value and seen.setdefault(value, index) != index:
            message = f"lane[{seen[value]}] has the {key} '{value}' already"
            yield Problem(place=f"lane[{index}].{key}", message=message, remedy=remedy)


def mountpoints_differ(spec: Spec) -> Problems:
    """Two file systems are never mounted at one place of the guest."""
    seen: dict[str, str] = {}
    for index, lane in enumerate(spec.lanes):
        if not isinstance(lane, Nvdimm):
            continue
        for place, one in _can_be_mounted(lane, index):
            if one.filesystem is not Filesystem.NONE and seen.setdefault(one.mountpoint, place) != place:
                message = f"{seen[one.mountpoint]} is mounted at {one.mountpoint} already"
                yield Problem(place=f"{place}.mountpoint", message=message, remedy="name another mountpoint")


def _can_be_mounted(lane: Nvdimm, index: int) -> Iterator[tuple[str, Nvdimm | PmemNamespace]]:
    yield f"lane[{index}]", lane
    for number, one in enumerate(lane.namespaces):
        yield f"lane[{index}].namespaces[{number}]", one


def guest_nodes_are_there(spec: Spec) -> Problems:
    """The guest's NUMA node that an NVDIMM belongs to is one of `machine.numa`; without that the guest has node 0."""
    count = max(1, len(spec.machine.numa))
    for index, lane in enumerate(spec.lanes):
        if isinstance(lane, Nvdimm) and lane.guest_node is not None and lane.guest_node >= count:
            message = (
                f"the guest has the NUMA nodes 0 to {count - 1}" if count > 1 else "the guest has NUMA node 0 only"
            )
            remedy = "name one of those, or add one to machine.numa"
            yield Problem(place=f"lane[{index}].guest_node", message=message, remedy=remedy)


RULES = (
    lane_names_differ,
    drives_differ,
    files_differ,
    namespaces_differ,
    serials_differ,
    subsystems_differ,
    mountpoints_differ,
    guest_nodes_are_there,
)
