"""The disks of a machine that moves to storage that the first QEMU does not have.

::

    guest ──> disk ──> mirror ──> NBD client ── unix socket ──> NBD server of the second QEMU ──> a new image
                                                                                └── what the guest finds there

A mirror goes on while memory is copied, and ends as a whole copy when the guest stands still.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from nvlane.apply import block_qemu
from nvlane.cli.service.block_work import Work
from nvlane.cli.service.copies import Watch
from nvlane.cli.service.disks import Disk, disk_now, disks_of
from nvlane.cli.service.record import MachineRecord
from nvlane.cli.service.snapshot import look_at_path, needs_room, new_file, plug
from nvlane.cli.service.world import World
from nvlane.lanes.image import block_node
from nvlane.model.device import BlockNode
from nvlane.model.errors import HostError
from nvlane.plan.block_step import JobKind, StartBlockJob
from nvlane.plan.migrate_step import ServeDisks
from nvlane.plan.step import CreateImage, Step
from nvlane.wire.qmp import Qmp


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskCopy:
    """A disk that moves into a new image: its size in bytes, the image, and the mirror's id, which is also the name of
    the node that the mirror writes to."""

    disk: Disk
    size: int
    path: str
    format: str
    job: str


def copies_of(record: MachineRecord, directory: str) -> tuple[DiskCopy, ...]:
    """What is copied: every disk of QEMU's block layer that can be written, under the name that its file has."""
    found = list[DiskCopy]()
    with Qmp.connect(record.qmp) as monitor:
        for disk in disks_of(record):
            fmt = disk.format if disk.format in ("raw", "qcow2") else "raw" if disk.kind != "file" else "qcow2"
            name = PurePosixPath(disk.path).name if disk.kind == "file" else f"{disk.label}.{fmt}"
            if any(PurePosixPath(other.path).name == name for other in found):
                name = f"{disk.label}-{name}"
            size, job = disk_now(monitor, disk).size, f"{disk.label[:24]}-away"
            found.append(DiskCopy(disk=disk, size=size, path=f"{directory}/{name}", format=fmt, job=job))
    return tuple(found)


def new_images(world: World, copies: tuple[DiskCopy, ...]) -> Mapping[str, BlockNode]:
    """The nodes of the images on this host, by the name of the disk. Raises Refused or HostError where one is there or
    cannot be made."""
    nodes = dict[str, BlockNode]()
    for copy in copies:
        seen = new_file(world, copy.path)
        nodes[copy.disk.name] = block_node(copy.disk.node, copy.path, copy.format, seen)
    if raw := [copy for copy in copies if copy.format == "raw"]:
        needs_room(look_at_path(world, raw[0].path), sum(copy.size for copy in raw))
    return nodes


def create(copies: tuple[DiskCopy, ...]) -> Iterator[CreateImage]:
    for copy in copies:
        yield CreateImage(path=copy.path, format=copy.format, size=copy.size, fill=True)


def fill(record: MachineRecord, copies: tuple[DiskCopy, ...], socket: str, qmp: str, speed: int) -> Iterator[Step]:
    """Serve the images of the second QEMU (`qmp`) on `socket`, and begin to mirror into them."""
    if not copies:
        return
    nodes = tuple(copy.disk.node for copy in copies)
    yield ServeDisks(machine=record.name, target=qmp, socket=socket, nodes=nodes)
    for copy in copies:
        server = {"type": "unix", "path": socket}
        far = BlockNode(
            driver="nbd", node_name=copy.job,
            options={"server": server, "export": copy.disk.node, "discard": "unmap"},
        )  # fmt: skip
        yield plug(record, far)
    with Qmp.connect(record.qmp) as monitor:
        tops = {copy.disk.name: disk_now(monitor, copy.disk).node for copy in copies}
    for copy in copies:
        yield StartBlockJob(
            machine=record.name, qmp=record.qmp, kind=JobKind.MIRROR, id=copy.job, node=tops[copy.disk.name],
            target=copy.job, sync="full", speed=speed,
        )  # fmt: skip


def wait_until_filled(work: Work, copies: tuple[DiskCopy, ...], watch: Watch) -> None:
    """Raises HostError when one of the mirrors fails."""
    for copy in copies:
        work.tell.phase(f"copying {copy.disk.name} to {copy.path}")
        block_qemu.wait_for(work.record.qmp, copy.job, "ready", progress=watch)


def must_be_writable(copies: tuple[DiskCopy, ...]) -> None:
    for copy in copies:
        lane = copy.disk.lane
        nodes = [device for device in lane.devices if isinstance(device, BlockNode)] if lane else []
        if any(node.node_name == copy.disk.node and node.options.get("read-only") for node in nodes):
            raise HostError(
                f"{copy.disk.name} is read-only: it is not copied", remedy="detach it, or move without --copy-storage"
            )
