"""The disks of a machine that QEMU's block layer has, and where each is now.

The record of a machine says what its disks are made of (the typed devices of its lanes). A snapshot or a mirror changes
that: `moved` gives the record of afterwards, with the claims and proofs that name the old file, so that `verify`,
`detach`, `down` and `migrate` see what is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from nvlane.cli.service.record import LaneRecord, MachineRecord
from nvlane.model.claim import Claim, WriteClaim
from nvlane.model.device import BlockNode, BootDisk, Device, Frontend
from nvlane.model.errors import Bug, HostError, Refused
from nvlane.qemu import blocks
from nvlane.qemu.blocks import DiskNow
from nvlane.qemu.inspect import Monitor
from nvlane.spec.lane import LaneKind

#: The disk that a machine boots from (qemu.board): its name for people, its front end and its node.
BOOT, BOOT_FRONTEND, BOOT_NODE = "boot", "boot-disk", "boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk: its name for people (LANE, LANE:NSID or 'boot'), its front end's id, its node, and what that is on: a
    path, 'file', 'device' or 'drive' (a controller that QEMU drives itself), and the image's format."""

    name: str
    lane: LaneRecord | None
    frontend: str
    driver: str
    node: str
    path: str
    kind: str
    format: str

    @property
    def label(self) -> str:
        return self.name.replace(":", "-")


def disks_of(record: MachineRecord) -> Iterator[Disk]:
    """Every disk that QEMU's block layer has."""
    boot = record.machine.boot
    if isinstance(boot, BootDisk):
        kind = "device" if boot.path.startswith("/dev/") else "file"
        yield Disk(
            name=BOOT, lane=None, frontend=BOOT_FRONTEND, driver="virtio-blk-pci",
            node=boot.node, path=boot.path, kind=kind, format=boot.format,
        )  # fmt: skip
    for lane in record.present:
        yield from _of_lane(lane)


def _of_lane(lane: LaneRecord) -> Iterator[Disk]:
    nodes = {device.node_name: device for device in lane.devices if isinstance(device, BlockNode)}
    fronts = [d for d in lane.devices if isinstance(d, Frontend) and d.properties.get("drive") in nodes]
    for front in fronts:
        node = nodes[str(front.properties["drive"])]
        nsid = front.properties.get("nsid")
        name = f"{lane.name}:{nsid}" if nsid is not None and len(fronts) > 1 else lane.name
        path, kind = place_of(node)
        yield Disk(
            name=name, lane=lane, frontend=front.id, driver=front.driver,
            node=node.node_name, path=path, kind=kind, format=node.driver,
        )  # fmt: skip


def place_of(node: BlockNode) -> tuple[str, str]:
    """Where a node's bytes are, and of which kind that is."""
    if node.driver == "nvme":
        return f"{node.options.get('device')}, namespace {node.options.get('namespace')}", "drive"
    file = node.options.get("file")
    if not isinstance(file, dict):
        raise Bug(f"the block node {node.node_name} is on no file")
    return str(file["filename"]), "device" if file["driver"] == "host_device" else "file"


def chain(disk: Disk) -> tuple[str, ...]:
    """The names of a disk's node and of all below it, the topmost first."""
    if disk.lane is None:
        return tuple(dict.fromkeys((disk.node, BOOT_NODE, f"{BOOT_NODE}-file")))
    nodes = {device.node_name: device for device in disk.lane.devices if isinstance(device, BlockNode)}
    names = [disk.node]
    while isinstance(below := nodes[names[-1]].options.get("backing"), str):
        names.append(below)
    return tuple(names)


def find_disk(record: MachineRecord, name: str, verb: str) -> Disk:
    """The disk of this name. Raises Refused for a lane that QEMU's block layer does not have, HostError for none."""
    every = tuple(disks_of(record))
    for disk in every:
        if disk.name == name or (disk.lane is not None and f"{disk.lane.name}:1" == name == f"{disk.name}:1"):
            return disk
    for lane in record.present:
        if lane.name == name:
            raise _no_block_layer(lane, verb, [disk.name for disk in every if disk.lane == lane])
    known = ", ".join(disk.name for disk in every) or "none"
    raise HostError(f"{record.name} has no disk '{name}' in QEMU's block layer", remedy=f"there are: {known}")


def _no_block_layer(lane: LaneRecord, verb: str, names: list[str]) -> HostError | Refused:
    if names:
        return HostError(f"{lane.name} has several disks", remedy=f"name one: {', '.join(names)}")
    match lane.kind:
        case LaneKind.PASSTHROUGH:
            return Refused(
                f"{verb}: {lane.name} is a passthrough lane: the guest drives the controller itself, past QEMU",
                remedy="the userspace lane gives the same drive to QEMU's block layer, which can",
            )
        case LaneKind.NVDIMM:
            return Refused(
                f"{verb}: {lane.name} is memory of the guest, which never passes a block layer",
                remedy="copy it from inside the guest, or copy its file after nvlane down",
            )
        case _:
            return Refused(
                f"{verb}: the requests of {lane.name} go to its target and not through QEMU's block layer",
                remedy="nvlane throttle and nvlane resize ask the target; for the rest take the emulated, userspace or "
                "fabrics lane without an engine, or copy the file after nvlane down",
            )


def disk_now(monitor: Monitor, disk: Disk) -> DiskNow:
    """What QEMU says of a disk. Raises HostError when it no longer has it."""
    now = blocks.disk(monitor, disk.frontend)
    if now is None:
        raise HostError(f"QEMU shows no disk behind {disk.frontend}", remedy="see nvlane status")
    return now


def moved(record: MachineRecord, disk: Disk, target: BlockNode, *, over: bool) -> MachineRecord:
    """The record after the disk went to another node; `over`: the old one is below it (a snapshot)."""
    path, _ = place_of(target)
    if disk.lane is None:
        boot = BootDisk(path=path, format=target.driver, node=target.node_name)
        return dataclasses.replace(record, machine=dataclasses.replace(record.machine, boot=boot))
    lane = record.lane(disk.lane.name)
    above = dataclasses.replace(target, options={**target.options, "backing": disk.node}) if over else target
    rest = frozenset() if over else frozenset(chain(disk)[1:])  # a whole copy needs nothing below it
    devices = tuple(
        new
        for device in lane.devices
        if not (isinstance(device, BlockNode) and device.node_name in rest)
        for new in _placed(device, disk, above, over=over)
    )
    gone = _proof_path(lane, disk)
    lane = dataclasses.replace(
        lane,
        devices=devices,
        claims=tuple(_retargeted(claim, gone, path) for claim in lane.claims),
    )
    return dataclasses.replace(
        record,
        lanes=tuple(lane if other.number == lane.number else other for other in record.lanes),
        proofs=tuple(
            dataclasses.replace(proof, host_path=path) if proof.host_path == gone else proof for proof in record.proofs
        ),
    )


def _placed(device: Device, disk: Disk, target: BlockNode, *, over: bool) -> Iterator[Device]:
    if isinstance(device, BlockNode) and device.node_name == disk.node:
        if over:
            yield device
        yield target
    elif isinstance(device, Frontend) and device.id == disk.frontend:
        yield dataclasses.replace(device, properties={**device.properties, "drive": target.node_name})
    else:
        yield device


def _proof_path(lane: LaneRecord, disk: Disk) -> str:
    """Where the host reads the proof of a disk: its file, or, of a drive or a fabric, what the claim names."""
    paths = [claim.host_path for claim in lane.claims if isinstance(claim, WriteClaim)]
    return next((path for path in paths if disk.kind != "file" or path == disk.path), disk.path)


def _retargeted(claim: Claim, gone: str, path: str) -> Claim:
    if isinstance(claim, WriteClaim) and claim.host_path == gone:
        return dataclasses.replace(claim, host_path=path)
    return claim


def node_name(record: MachineRecord, disk: Disk, suffix: str) -> str:
    """A name for a node that this machine does not have yet. QEMU takes 31
    characters (block.c, bdrv_assign_node_name)."""
    taken = {device.node_name for lane in record.lanes for device in lane.devices if isinstance(device, BlockNode)}
    number = 1
    while (name := f"{disk.label[:22]}-{suffix}{number}") in taken or name == disk.node:
        number += 1
    return name


def spec_words(disk: Disk, path: str, kind: str, fmt: str) -> str:
    """What a spec must name from now on for the disk to be what it is now."""
    if disk.lane is None:
        return f'[machine] image = "{path}", image_format = "{fmt}"'
    key = "device" if kind == "device" else "image"
    form = "" if kind == "device" else f', format = "{fmt}"'
    if disk.lane.kind == LaneKind.EMULATED:
        return f'in the namespace of lane {disk.lane.name}: {key} = "{path}"{form}'
    return f'an emulated lane in the place of {disk.lane.name}: namespaces = [{{ {key} = "{path}"{form} }}]'
