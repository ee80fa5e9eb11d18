"""Rules of an emulated lane, most of them QEMU's own (hw/nvme/ctrl.c and ns.c), said before it starts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from nvlane.model.size import MIB, format_size
from nvlane.spec.lane import Emulated, EmulatedNamespace
from nvlane.spec.problem import Problem, Problems


def _namespaces(lane: Emulated, place: str) -> Iterator[tuple[str, EmulatedNamespace]]:
    for index, namespace in enumerate(lane.namespaces):
        yield f"{place}.namespaces[{index}]", namespace


def has_a_namespace(lane: Emulated, place: str) -> Problems:
    """A controller has at least one namespace."""
    if not lane.namespaces:
        remedy = 'add namespaces = [{ image = "disk.qcow2", size = "5GiB" }]'
        yield Problem(place=place, message="has no namespace", remedy=remedy)


def one_backend(lane: Emulated, place: str) -> Problems:
    """A namespace is on an image or on a block device; only an image can be created."""
    for where, namespace in _namespaces(lane, place):
        if namespace.image and namespace.device:
            message = "stands beside image; a namespace is on one of them"
            yield Problem(place=f"{where}.device", message=message, remedy="drop image or device")
        if not namespace.image and not namespace.device:
            remedy = 'write image = "disk.qcow2" or device = "/dev/…"'
            yield Problem(place=where, message="has neither image nor device", remedy=remedy)
        if namespace.size and namespace.device:
            message = "a block device has its own size"
            yield Problem(place=f"{where}.size", message=message, remedy="drop size")


def identifiers_differ(lane: Emulated, place: str) -> Problems:
    """`nsid` and `uuid` are unique in a controller, and a UUID is one."""
    nsids: dict[int, str] = {}
    uuids: dict[str, str] = {}
    for where, namespace in _namespaces(lane, place):
        if namespace.nsid and nsids.setdefault(namespace.nsid, where) != where:
            message = f"{nsids[namespace.nsid]} has nsid {namespace.nsid} already"
            yield Problem(place=f"{where}.nsid", message=message, remedy="give each its own, or leave nsid out")
        if not namespace.uuid:
            continue
        try:
            known = str(uuid.UUID(namespace.uuid))
        except ValueError:
            message = f"'{namespace.uuid}' is not a UUID"
            yield Problem(place=f"{where}.uuid", message=message, remedy="make one with uuidgen")
            continue
        if uuids.setdefault(known, where) != where:
            message = f"{uuids[known]} has this UUID already"
            yield Problem(place=f"{where}.uuid", message=message, remedy="make another with uuidgen")


def whole_blocks(lane: Emulated, place: str) -> Problems:
    """`block_size` is 512 or 4096, and an image's size a multiple of it."""
    for where, namespace in _namespaces(lane, place):
        block = namespace.block_size
        if block not in (512, 4096):
            message = f"{block} is not a block size here"
            yield Problem(place=f"{where}.block_size", message=message, remedy="write 512 or 4096")
        elif namespace.size % block:
            message = f"{format_size(namespace.size)} is no multiple of the block size ({block})"
            yield Problem(place=f"{where}.size", message=message, remedy=f"write a multiple of {block}")


def protection_has_room(lane: Emulated, place: str) -> Problems:
    """Protection information takes 8 bytes of metadata a block."""
    for where, namespace in _namespaces(lane, place):
        if namespace.protection and namespace.metadata_size < 8:
            message = f"needs metadata of 8 bytes a block; metadata_size is {namespace.metadata_size}"
            yield Problem(place=f"{where}.protection", message=message, remedy="write metadata_size = 8")


def zones_fit(lane: Emulated, place: str) -> Problems:
    """A zone is whole blocks and no smaller than its capacity; the image holds at least one. An open zone is
    an active one. There are none in an FDP subsystem."""
    for where, namespace in _namespaces(lane, place):
        zoned, at = namespace.zoned, f"{where}.zoned"
        if zoned is None or namespace.block_size not in (512, 4096):
            continue
        for key, size in (("zone_size", zoned.zone_size), ("zone_capacity", zoned.zone_capacity)):
            if size % namespace.block_size:
                message = f"{format_size(size)} is no multiple of the block size ({namespace.block_size})"
                yield Problem(
                    place=f"{at}.{key}", message=message, remedy=f"write a multiple of {namespace.block_size}"
                )
        if zoned.zone_capacity > zoned.zone_size:
            message = f"{format_size(zoned.zone_capacity)} is more than the zone ({format_size(zoned.zone_size)})"
            yield Problem(
                place=f"{at}.zone_capacity", message=message, remedy="lower zone_capacity, or raise zone_size"
            )
        if zoned.max_active and zoned.max_open > zoned.max_active:
            message = f"{zoned.max_open} is more than max_active ({zoned.max_active})"
            yield Problem(place=f"{at}.max_open", message=message, remedy=f"write {zoned.max_active} or less")
        if lane.fdp is not None:
            message = "QEMU has no zoned namespaces in an FDP subsystem"
            yield Problem(place=at, message=message, remedy="drop zoned or fdp, or use two lanes")
        yield from _zone_fits_image(namespace, at)


def _zone_fits_image(namespace: EmulatedNamespace, at: str) -> Problems:
    zoned = namespace.zoned
    if zoned is None or not namespace.size:
        return
    if namespace.size < zoned.zone_size:
        message = f"{format_size(zoned.zone_size)} is more than the image ({format_size(namespace.size)})"
        yield Problem(place=f"{at}.zone_size", message=message, remedy="lower zone_size, or raise size")


def handles_exist(lane: Emulated, place: str) -> Problems:
    """FDP handles of a namespace are numbers below `fdp.handles`, each named once."""
    for where, namespace in _namespaces(lane, place):
        if namespace.handles and lane.fdp is None:
            yield Problem(place=f"{where}.handles", message="stands without FDP", remedy="add fdp = {} to the lane")
        for index, handle in enumerate(namespace.handles):
            if lane.fdp is not None and handle >= lane.fdp.handles:
                message = f"there is no handle {handle}; the subsystem has 0 to {lane.fdp.handles - 1}"
                yield Problem(place=f"{where}.handles[{index}]", message=message, remedy="raise fdp.handles")
            if handle in namespace.handles[:index]:
                message = f"handle {handle} is named twice"
                yield Problem(place=f"{where}.handles[{index}]", message=message, remedy="name it once")


def controller_memory_fits(lane: Emulated, place: str) -> Problems:
    """CMB and PMR are powers of two (PCI BARs), the CMB of whole MiB, and SR-IOV goes with neither."""
    for key, size in (("cmb", lane.cmb), ("pmr", lane.pmr)):
        if size and (size & (size - 1) or (key == "cmb" and size < MIB)):
            message = f"{format_size(size)} is not a size that a PCI BAR can have"
            yield Problem(place=f"{place}.{key}", message=message, remedy="write a power of two, 1MiB or more")
        if size and lane.vfs:
            message = f"QEMU has no SR-IOV beside a {key.upper()}"
            yield Problem(place=f"{place}.vfs", message=message, remedy=f"drop vfs or {key}")
    if lane.pmr_file and not lane.pmr:
        yield Problem(place=f"{place}.pmr_file", message="stands without a size", remedy='add pmr = "64MiB"')


def proof_can_be_written(lane: Emulated, place: str) -> Problems:
    """`write_proof` needs a namespace that the guest may write."""
    if lane.write_proof and lane.namespaces and all(namespace.read_only for namespace in lane.namespaces):
        message = "every namespace is read-only"
        yield Problem(place=f"{place}.write_proof", message=message, remedy="drop write_proof, or one read_only")


RULES = (
    has_a_namespace,
    one_backend,
    identifiers_differ,
    whole_blocks,
    protection_has_room,
    zones_fit,
    handles_exist,
    controller_memory_fits,
    proof_can_be_written,
)
