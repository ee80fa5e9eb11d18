"""`snapshot`: what a disk holds now stays in its image, and the guest writes to a new one above it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply.block_qemu import can_freeze
from nvlane.cli.service.block_work import at_work
from nvlane.cli.service.disks import Disk, disk_now, find_disk, node_name, spec_words
from nvlane.cli.service.record import MachineRecord, WorkRecord
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.facts.paths import read_path
from nvlane.facts.shape import PathFacts
from nvlane.facts.usage import take_survey
from nvlane.lanes.image import block_node
from nvlane.model.device import BlockNode
from nvlane.model.errors import HostError, Refused
from nvlane.plan.block_step import TakeSnapshot
from nvlane.plan.step import CreateImage, PlugDevices
from nvlane.wire.qmp import Qmp


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """A disk that is on another file now: what it was on, what it is on, and what a spec must name. `frozen`: the
    guest's file systems were written out and frozen meanwhile."""

    disk: str
    was: str
    now: str
    format: str
    frozen: bool
    spec: str


def take_snapshot(world: World, name: str, disk_name: str, to: str, tell: Tell, *, freeze: bool) -> Moved:
    """Take one. Raises Refused for a disk that cannot have one, or a file that is there."""
    with at_work(world, name, tell) as work:
        disk = find_disk(work.record, disk_name, "snapshot")
        _refuse(disk)
        seen = new_file(world, to)
        with Qmp.connect(work.record.qmp) as monitor:
            now = disk_now(monitor, disk)
        agent = agent_of(work.record) if freeze else ""
        overlay = block_node(node_name(work.record, disk, "snap"), to, "qcow2", seen)
        cut = WorkRecord(id=overlay.node_name, disk=disk.name, first=work.journal.next_n, target=overlay, over=True)
        with work.undone_on_failure(cut):
            work.do(
                (
                    CreateImage(path=to, format="qcow2", size=now.size, backing=disk.path, backing_format=disk.format),
                    plug(work.record, dataclasses.replace(overlay, options={**overlay.options, "backing": None})),
                    TakeSnapshot(
                        machine=name, qmp=work.record.qmp, node=disk.node, overlay=overlay.node_name, agent=agent
                    ),
                )
            )
            work.move(cut, "the guest writes to it")
        words = spec_words(disk, to, "file", "qcow2")
        return Moved(disk=disk.name, was=disk.path, now=to, format="qcow2", frozen=bool(agent), spec=words)


def _refuse(disk: Disk) -> None:
    if disk.kind == "drive" or (disk.lane is not None and disk.lane.kind == "fabrics"):
        what = "a drive that QEMU drives itself" if disk.kind == "drive" else "a namespace of a fabric"
        raise Refused(
            f"snapshot: {disk.name} is {what}: no spec could name the new file above it",
            remedy="nvlane backup copies it as it is now; nvlane mirror moves it to a file",
        )


def plug(record: MachineRecord, *nodes: BlockNode) -> PlugDevices:
    return PlugDevices(machine=record.name, qmp=record.qmp, devices=nodes)


def agent_of(record: MachineRecord) -> str:
    """The socket of the guest agent, when one answers that can freeze file systems; else ''."""
    path = f"{record.machine.runtime}/agent.sock"
    return path if can_freeze(path) else ""


def look_at_path(world: World, path: str) -> PathFacts:
    """What stands at a path, and who uses it if it is a device."""
    return read_path(world.host, path, take_survey(world.host))


def new_file(world: World, path: str) -> PathFacts:
    """A path at which a new image can be made. Raises Refused."""
    seen = look_at_path(world, path)
    if seen.kind != "absent":
        raise Refused(f"{path} is there already; nvlane never overwrites an image", remedy="name another file")
    if not seen.parent_exists or not seen.writable:
        raise HostError(f"{path} cannot be made in {Path(path).parent}", remedy="make that directory, or name another")
    return seen


def needs_room(seen: PathFacts, size: int) -> None:
    """Raises HostError when a whole copy of so many bytes would not fit."""
    if seen.free_space < size:
        raise HostError(
            f"a copy takes up to {size} bytes, and {seen.free_space} are free at {seen.path}",
            remedy="name a file on another file system",
        )
