"""`mirror`, `backup` and `jobs`: copies of a disk while its guest writes to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from nvlane.apply import block_qemu
from nvlane.cli.service.block_work import Work, at_work
from nvlane.cli.service.disks import Disk, chain, disk_now, find_disk, node_name, place_of, spec_words
from nvlane.cli.service.record import WorkRecord
from nvlane.cli.service.refused import PlanRefused
from nvlane.cli.service.snapshot import Moved, agent_of, look_at_path, needs_room, new_file, plug
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.facts.shape import PathFacts
from nvlane.lanes.image import block_node, image_format
from nvlane.model.device import BlockNode
from nvlane.model.errors import HostError, Refused
from nvlane.model.size import format_size
from nvlane.plan import refuse
from nvlane.plan.block_step import JobKind, StartBlockJob
from nvlane.plan.step import CreateImage, Step
from nvlane.qemu import blocks
from nvlane.qemu.blocks import DiskNow, JobNow
from nvlane.wire.qmp import Qmp


class Then(StrEnum):
    """What becomes of a mirror that is ready."""

    COMPLETE = "complete"
    STOP = "stop"
    WAIT = "wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A copy as a person asks for it. `to` is a path; `erase` the same one again where that is a device; `speed` in
    bytes a second (0: as fast as it goes)."""

    disk: str
    to: str
    format: str = ""
    sync: str = "full"
    erase: str = ""
    speed: int = 0
    bitmap: str = ""
    base: str = ""
    freeze: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """A copy: what of, where to, whether it is whole, and what came of the disk."""

    id: str
    disk: str
    to: str
    format: str
    state: str
    size: int
    frozen: bool = False
    bitmap: str = ""
    kept_in_image: bool = False
    moved: Moved | None = None


#: Called with a job whenever it was looked at.
Watch = Callable[[JobNow], None]


def mirror(world: World, name: str, wanted: Wanted, then: Then, tell: Tell, watch: Watch) -> Copied:
    """Copy a disk until the copy is the same, and keep it so; then go on there (COMPLETE), leave a whole copy of that
    moment (STOP), or leave the job running (WAIT)."""
    with at_work(world, name, tell) as work:
        disk = find_disk(work.record, wanted.disk, "mirror")
        now = _now(work, disk)
        node, steps = _target(work, disk, now, wanted, "mirror")
        job = StartBlockJob(
            machine=name, qmp=work.record.qmp, kind=JobKind.MIRROR, id=node.node_name, node=now.node,
            target=node.node_name, sync=wanted.sync, speed=wanted.speed,
        )  # fmt: skip
        cut = WorkRecord(id=job.id, disk=disk.name, first=work.journal.next_n, target=node)
        copied = Copied(id=job.id, disk=disk.name, to=wanted.to, format=node.driver, state="ready", size=now.size)
        with work.undone_on_failure(cut):
            numbers = work.do((*steps, plug(work.record, node), job))
            tell.phase(f"copying {disk.name} ({format_size(now.size)}) to {wanted.to}")
            block_qemu.wait_for(work.record.qmp, job.id, "ready", progress=watch)
            if then is Then.WAIT:
                work.forget(cut)
                work.begin(dataclasses.replace(cut, steps=numbers, left=True))
                return copied
            if then is Then.STOP:
                return dataclasses.replace(copied, state=_stop(work, cut))
            return dataclasses.replace(copied, state="completed", moved=_go_over(work, cut, disk))


def _now(work: Work, disk: Disk) -> DiskNow:
    with Qmp.connect(work.record.qmp) as monitor:
        return disk_now(monitor, disk)


def _go_over(work: Work, cut: WorkRecord, disk: Disk) -> Moved:
    """The guest goes on at the copy. From the last word before QEMU is told, the copy is kept whatever happens."""
    work.settle_images(_paths(cut), "it is a whole copy")
    block_qemu.complete(work.record.qmp, cut.id)
    path, kind = place_of(_node(cut))
    old = chain(disk)
    work.move(cut, "the guest writes to it")
    _drop(work, old)
    words = spec_words(disk, path, kind, _node(cut).driver)
    return Moved(disk=disk.name, was=disk.path, now=path, format=_node(cut).driver, frozen=False, spec=words)


def _drop(work: Work, names: Sequence[str]) -> None:
    """The old nodes, the topmost first, which nobody uses any more."""
    with Qmp.connect(work.record.qmp) as monitor:
        for name in names:
            if name in blocks.nodes(monitor):
                monitor.execute("blockdev-del", {"node-name": name})


def _stop(work: Work, cut: WorkRecord) -> str:
    """A mirror that is ready ends as a whole copy, and the guest stays where it is."""
    work.settle_images(_paths(cut), "it is a whole copy")
    block_qemu.end_job(work.record.qmp, cut.id, soft=True)
    work.give_up(cut).raise_for_failed()
    return "copied"


def _paths(cut: WorkRecord) -> tuple[str, ...]:
    return (place_of(_node(cut))[0],)


def _node(cut: WorkRecord) -> BlockNode:
    if cut.target is None:
        raise HostError(f"{cut.id} is no mirror", remedy="it ends by itself")
    return cut.target


def backup(world: World, name: str, wanted: Wanted, tell: Tell, watch: Watch) -> Copied:
    """Copy what a disk holds at this moment. With a bitmap that is there, only what changed since it was begun or was
    copied last; with one that is not, all, and the bitmap begins at the same moment."""
    with at_work(world, name, tell) as work:
        disk = find_disk(work.record, wanted.disk, "backup")
        now = _now(work, disk)
        fresh = bool(wanted.bitmap) and wanted.bitmap not in now.bitmaps
        _check_base(wanted, fresh)
        node, steps = _target(work, disk, now, wanted, "backup")
        agent = agent_of(work.record) if wanted.freeze else ""
        job = StartBlockJob(
            machine=name, qmp=work.record.qmp, kind=JobKind.BACKUP, id=node.node_name, node=now.node,
            target=node.node_name, sync="bitmap" if wanted.bitmap and not fresh else wanted.sync, speed=wanted.speed,
            bitmap=wanted.bitmap, new_bitmap=fresh, persistent=fresh and disk.format == "qcow2", agent=agent,
        )  # fmt: skip
        cut = WorkRecord(id=job.id, disk=disk.name, first=work.journal.next_n)
        with work.undone_on_failure(cut):
            plugging, starting = work.do((*steps, plug(work.record, node), job))[-2:]
            tell.phase(f"copying {disk.name} to {wanted.to}")
            done = block_qemu.wait_for(work.record.qmp, job.id, "concluded", progress=watch)
            block_qemu.dismiss(work.record.qmp, job.id)
            # The copy is the user's from here on, and the bitmap goes on; only the node goes.
            work.settle_images((wanted.to,), "it is a whole copy")
            work.settle(dataclasses.replace(cut, steps=(starting,)), "it is done")
            work.undo((plugging,)).raise_for_failed()
            work.forget(cut)
        return Copied(
            id=job.id, disk=disk.name, to=wanted.to, format=node.driver, size=done.total, frozen=bool(agent),
            state="incremental" if job.sync == "bitmap" else "full", bitmap=wanted.bitmap,
            kept_in_image=bool(wanted.bitmap) and disk.format == "qcow2",
        )  # fmt: skip


def _check_base(wanted: Wanted, fresh: bool) -> None:
    if wanted.base and (not wanted.bitmap or fresh):
        raise HostError(
            f"there is no bitmap '{wanted.bitmap}' yet, so this backup is a full one" if wanted.bitmap
            else "--base is what an incremental backup rests on: name its --bitmap too",
            remedy="leave --base out",
        )  # fmt: skip
    if wanted.bitmap and not fresh and not wanted.base:
        raise HostError(
            f"the bitmap '{wanted.bitmap}' is there, so this backup is an incremental one, which rests on another",
            remedy="name the last one of this bitmap by --base FILE, or take another name for a new chain",
        )


def _target(work: Work, disk: Disk, now: DiskNow, wanted: Wanted, verb: str) -> tuple[BlockNode, tuple[Step, ...]]:
    """The node to copy to, and the steps that make its image. Raises Refused."""
    seen = look_at_path(work.world, wanted.to)
    name = node_name(work.record, disk, verb)
    if seen.kind == "block":
        return _device(name, seen, now, wanted), ()
    new_file(work.world, wanted.to)
    fmt = "qcow2" if wanted.base else image_format(wanted.to, wanted.format, seen)
    if fmt == "raw" and not wanted.base:
        needs_room(seen, now.size)
    base = wanted.base
    create = CreateImage(
        path=wanted.to, format=fmt, size=now.size, backing=base, fill=True,
        backing_format=_format(work.world, base) if base else "",
    )  # fmt: skip
    node = block_node(name, wanted.to, fmt, seen)
    if base:  # what it rests on is for whoever reads it: nobody opens it here
        node = dataclasses.replace(node, options={**node.options, "backing": None})
    return node, (create,)


def _format(world: World, base: str) -> str:
    seen = look_at_path(world, base)
    if seen.kind != "file":
        raise HostError(f"--base: {base} is no file", remedy="name the last backup of this bitmap")
    return seen.format or "raw"


def _device(name: str, seen: PathFacts, now: DiskNow, wanted: Wanted) -> BlockNode:
    used = refuse.uses(None, wanted.to, seen.uses)
    if used:
        raise PlanRefused(wanted.to, used, lambda _: "")
    if wanted.erase != wanted.to:
        raise Refused(
            f"{wanted.to} is a block device, and everything on it would be overwritten",
            remedy=f"--erase {wanted.to} says that this is meant",
        )
    if seen.size and seen.size < now.size:
        raise Refused(f"{wanted.to} has {seen.size} bytes, and the disk has {now.size}", remedy="name a larger one")
    node = block_node(name, wanted.to, "raw", seen)
    # The guest sees a disk of the same size as before, however large the device is.
    return dataclasses.replace(node, options={**node.options, "size": now.size})


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job of a machine as `nvlane jobs` shows it. `left`: it was left running and waits to be told its end."""

    id: str
    kind: str
    disk: str
    to: str
    status: str
    done: int
    total: int
    left: bool
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What came of telling a job its end."""

    id: str
    state: str
    moved: Moved | None = None
    kept: tuple[str, ...] = field(default=())


def jobs_of(world: World, name: str, tell: Tell) -> tuple[Job, ...]:
    """The jobs that a machine has."""
    with at_work(world, name, tell) as work:
        ours = {one.id: one for one in work.record.work}
        with Qmp.connect(work.record.qmp) as monitor:
            found = blocks.jobs(monitor)
    return tuple(
        Job(
            id=now.id, kind=now.kind, status=now.status, done=now.done, total=now.total, error=now.error,
            disk=ours[now.id].disk if now.id in ours else "", left=now.id in ours,
            to=place_of(target)[0] if now.id in ours and (target := ours[now.id].target) else "",
        )
        for now in found
    )  # fmt: skip


def tell_job(world: World, name: str, job: str, then: str, tell: Tell, watch: Watch) -> Told:
    """Let a mirror that was left running come to its end: 'complete' (go on at the copy), 'stop' (a whole copy of this
    moment) or 'cancel' (as if it had never been)."""
    with at_work(world, name, tell) as work:
        cut = work.work(job)
        if then == "cancel":
            work.give_up(cut).raise_for_failed()
            return Told(id=job, state="cancelled")
        block_qemu.wait_for(work.record.qmp, job, "ready", progress=watch)
        if then == Then.STOP:
            return Told(id=job, state=_stop(work, cut), kept=_paths(cut))
        return Told(id=job, state="completed", moved=_go_over(work, cut, work.disk(cut.disk)))
