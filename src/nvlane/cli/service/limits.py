"""`throttle` and `resize`: what a disk may do, and how large it is; through QEMU, or the target that serves it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nvlane.apply.record import Undone
from nvlane.cli.service.block_work import Work, at_work
from nvlane.cli.service.disks import Disk, disk_now, find_disk
from nvlane.cli.service.record import LaneRecord, MachineRecord
from nvlane.cli.service.targets import SeenTarget, living_target
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.model.claim import BlockClaim, ContentClaim
from nvlane.model.device import Frontend
from nvlane.model.errors import HostError, Refused
from nvlane.model.size import MIB, format_size
from nvlane.plan.block_step import ResizeDisk, ThrottleDisk
from nvlane.plan.step import Export
from nvlane.targets.native import bdev_name, rpc_socket
from nvlane.wire.jsonrpc import JsonRpc
from nvlane.wire.qmp import Qmp, QmpError

#: What nvlane-target limits, by our names, with the unit of each: SPDK's bdev_set_qos_limit.
_TARGET = {
    "iops": ("rw_ios_per_sec", 1),
    "bps": ("rw_mbytes_per_sec", MIB),
    "bps_rd": ("r_mbytes_per_sec", MIB),
    "bps_wr": ("w_mbytes_per_sec", MIB),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of a disk: operations and bytes a second by QMP's names, those that are not there left out."""

    disk: str
    by: str
    limits: Mapping[str, int]


def throttle(world: World, name: str, disk_name: str, wanted: Mapping[str, int] | None, tell: Tell) -> Limits:
    """Set the limits of a disk to these ({}: none), or only look at them (None)."""
    with at_work(world, name, tell) as work:
        lane = _vhost_lane(work.record, disk_name)
        if lane is not None:
            return _throttle_target(_target_of(world, work.record, lane, "throttle"), disk_name, wanted)
        disk = find_disk(work.record, disk_name, "throttle")
        with Qmp.connect(work.record.qmp) as monitor:
            now = disk_now(monitor, disk)
        if wanted is not None:
            step = ThrottleDisk(machine=name, qmp=work.record.qmp, device=now.device, limits=wanted)
            before = [entry.n for entry in work.journal.entries() if _same(entry.step, step) and not entry.undone]
            done = work.do((step,))
            for number in (*before, *(() if wanted else done)):
                work.journal.append(Undone(n=number, kept="other limits took their place"))
            with Qmp.connect(work.record.qmp) as monitor:
                now = disk_now(monitor, disk)
        return Limits(disk=disk.name, by="QEMU", limits={key: value for key, value in now.limits.items() if value})


def _same(step: object, other: ThrottleDisk) -> bool:
    return isinstance(step, ThrottleDisk) and step.device == other.device


def _vhost_lane(record: MachineRecord, name: str) -> LaneRecord | None:
    """The lane of this name, if a target serves it."""
    for lane in record.present:
        link = any(isinstance(d, Frontend) and d.driver.startswith("vhost-user-") for d in lane.devices)
        if lane.name == name and link:
            return lane
    return None


def _target_of(world: World, record: MachineRecord, lane: LaneRecord, verb: str) -> SeenTarget:
    seen = living_target(world, f"{record.name}.{lane.name}")
    if seen.step.engine != "nvlane" or seen.step.export is None:
        raise Refused(
            f"{verb}: {seen.step.engine} cannot while a guest has the disk",
            remedy='engine = "nvlane" can; or take a lane of QEMU\'s block layer',
        )
    return seen


def _export(seen: SeenTarget) -> Export:
    assert seen.step.export is not None  # _target_of refused what has none
    return seen.step.export


def _throttle_target(seen: SeenTarget, name: str, wanted: Mapping[str, int] | None) -> Limits:
    bdev = bdev_name(_export(seen))
    with JsonRpc.connect(rpc_socket(seen.step.directory)) as target:
        if wanted is not None:
            target.call("bdev_set_qos_limit", {"name": bdev, **_target_limits(wanted)})
        # The target names limits in its configuration only, as SPDK's framework_get_config does.
        calls = target.call("framework_get_config", {"name": "bdev"})
    now: dict[str, int] = next((c["params"] for c in calls if _limits(c, bdev)), {})
    limits = {ours: now[theirs] * unit for ours, (theirs, unit) in _TARGET.items() if now.get(theirs)}
    return Limits(disk=name, by=f"the target {seen.name}", limits=limits)


def _limits(call: Mapping[str, Any], bdev: str) -> bool:
    return bool(call["method"] == "bdev_set_qos_limit" and call["params"]["name"] == bdev)


def _target_limits(wanted: Mapping[str, int]) -> dict[str, int]:
    unknown = sorted(key for key, value in wanted.items() if value and key not in _TARGET)
    if unknown:
        raise Refused(
            f"throttle: nvlane-target has no limit {', '.join(unknown)}",
            remedy=f"it has {', '.join(_TARGET)}, without bursts",
        )
    for key, value in wanted.items():
        if key in _TARGET and value % _TARGET[key][1]:
            raise HostError(
                f"{key}: nvlane-target counts whole MiB a second", remedy=f"{format_size(value // MIB * MIB + MIB)}"
            )
    return {theirs: wanted.get(ours, 0) // unit for ours, (theirs, unit) in _TARGET.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resized:
    """A disk of another size, in bytes; `spec` is what a spec must say from now on."""

    disk: str
    was: int
    now: int
    spec: str


def resize(world: World, name: str, disk_name: str, size: int, tell: Tell, *, shrink: bool) -> Resized:
    """Give a disk another size, which the guest is told. Raises Refused for one that must not be made smaller, or
    whose front end could not tell the guest."""
    with at_work(world, name, tell) as work:
        lane = _vhost_lane(work.record, disk_name)
        if lane is not None:
            seen = _target_of(world, work.record, lane, "resize")
            return _resize_target(world, work, lane, seen, size, shrink=shrink)
        disk = find_disk(work.record, disk_name, "resize")
        _refuse(disk)
        with Qmp.connect(work.record.qmp) as monitor:
            now = disk_now(monitor, disk)
        _check(disk.name, now.size, size, _block_size(disk), shrink=shrink)
        try:
            (number,) = work.do((ResizeDisk(machine=name, qmp=work.record.qmp, node=now.node, size=size),))
        except QmpError as error:
            raise HostError(f"QEMU does not resize {disk.name}: {error.words}") from error
        work.journal.append(Undone(n=number, kept="the guest may have used it by now"))
        if disk.lane is not None:
            _claim(work, disk.lane, disk, size, smaller=size < now.size)
        return Resized(disk=disk.name, was=now.size, now=size, spec=f'size = "{format_size(size)}", or none')


def _refuse(disk: Disk) -> None:
    if disk.driver in ("nvme", "nvme-ns"):
        raise Refused(
            f"resize: {disk.name} is behind QEMU's NVMe controller, which lets nobody change the size of what it shows "
            "(block_resize: 'resize' is unshared by the device)",
            remedy="qemu-img resize the image after nvlane down; or take a virtio front end",
        )
    if disk.kind != "file":
        raise Refused(
            f"resize: {disk.name} is on {disk.path}, which has the size that it has",
            remedy="nvlane mirror it to a file",
        )


def _check(name: str, was: int, size: int, block: int, *, shrink: bool) -> None:
    if size % block:
        raise Refused(f"resize: {size} bytes are no whole blocks of {block}", remedy=f"take a multiple of {block}")
    if size < was and not shrink:
        raise Refused(
            f"resize: {name} has {format_size(was)}, and what is beyond {format_size(size)} would be lost",
            remedy="make the guest's file system smaller first; --shrink then says that this is meant",
        )


def _block_size(disk: Disk) -> int:
    """The logical block size that the front end shows; QEMU's own size is in sectors of 512 bytes whatever it is."""
    devices = disk.lane.devices if disk.lane else ()
    front = next((d for d in devices if isinstance(d, Frontend) and d.id == disk.frontend), None)
    return max(512, int(str(front.properties.get("logical_block_size", 512)))) if front else 512


def _claim(work: Work, lane: LaneRecord, disk: Disk | None, size: int, *, smaller: bool) -> None:
    """From now on the lane claims the new size."""
    nsid = disk.name.rpartition(":")[2] if disk is not None and ":" in disk.name else ""

    def ours(claim: object) -> bool:
        return isinstance(claim, BlockClaim | ContentClaim) and (not nsid or str(claim.locator.nsid) == nsid)

    claims = tuple(
        dataclasses.replace(claim, size=size) if isinstance(claim, BlockClaim) and ours(claim) else claim
        for claim in lane.claims
        if not (smaller and isinstance(claim, ContentClaim) and ours(claim))
    )
    changed = dataclasses.replace(work.record.lane(lane.name), claims=claims)
    lanes = tuple(changed if one.number == lane.number else one for one in work.record.lanes)
    work.keep(dataclasses.replace(work.record, lanes=lanes))


def _resize_target(world: World, work: Work, lane: LaneRecord, seen: SeenTarget, size: int, *, shrink: bool) -> Resized:
    export, bdev = _export(seen), bdev_name(_export(seen))
    key = "malloc" if export.malloc else "null" if export.null else "file"
    if export.address is not None or export.block_device:
        raise Refused(f"resize: {lane.name} is a whole device", remedy="it has the size that it has")
    with JsonRpc.connect(rpc_socket(seen.step.directory)) as target:
        was = _size(target, bdev)
        _check(lane.name, was, size, max(export.block_size, 512), shrink=shrink)
        if key == "file":
            world.host.command(["truncate", "--no-create", f"--size={size}", export.path])
            target.call("bdev_aio_rescan", {"name": bdev})
        elif size % MIB:
            raise Refused("resize: nvlane-target counts whole MiB", remedy=f"{format_size(size // MIB * MIB + MIB)}")
        else:
            target.call(f"bdev_{key}_resize", {"name": bdev, "new_size": size // MIB})
        now = _size(target, bdev)
    _claim(work, lane, None, now, smaller=size < was)
    words = f'{key} = "{format_size(now)}"' if key != "file" else f'size = "{format_size(now)}", or none'
    return Resized(disk=lane.name, was=was, now=now, spec=words)


def _size(target: JsonRpc, bdev: str) -> int:
    (found,) = target.call("bdev_get_bdevs", {"name": bdev})
    values: dict[str, Any] = found
    return int(values["num_blocks"]) * int(values["block_size"])
