"""`migrate`: a machine to a second QEMU on this host, while its guest runs.

::

    QEMU ──── unix socket: memory and devices ────> second QEMU (-incoming)
      │ disks: the same files, opened by the second one only when it has everything; or copied (migrate_disks.py)
    target ── the same file ──> second target, one for each vhost-user lane
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol

from nvlane.apply.migrate_qemu import QemuMigrator, blocked
from nvlane.apply.operations.migrate import MigrateMachineOperation
from nvlane.apply.operations.operation import Operation
from nvlane.cli.service.block_work import Work, at_work, elsewhere, go_over, on_copies, settle_migration
from nvlane.cli.service.disks import disks_of
from nvlane.cli.service.migrate_board import NextBoard, next_board
from nvlane.cli.service.migrate_disks import (
    DiskCopy,
    copies_of,
    create,
    fill,
    must_be_writable,
    new_images,
    wait_until_filled,
)
from nvlane.cli.service.record import MachineRecord, WorkRecord
from nvlane.cli.service.refused import PlanRefused
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.model.device import Device, MachineDevice, Object
from nvlane.model.errors import Bug, HostError
from nvlane.plan.migrate_step import MigrateMachine, ReceiveMachine
from nvlane.plan.plan import Refusal
from nvlane.plan.step import MakeDirectory, StartMachine, StartTarget, Step
from nvlane.qemu import inspect
from nvlane.qemu.blocks import JobNow
from nvlane.qemu.migration import MigrationNow, migration
from nvlane.spec.lane import LaneKind
from nvlane.targets.table import ENGINES
from nvlane.wire.qmp import Qmp


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """A machine that runs in another QEMU: its process, its sockets, the guest's pause in ms, and the images that its
    disks are on now, where they were copied."""

    machine: str
    pid: int
    qmp: str
    downtime: int
    disks: Mapping[str, str] = field(default_factory=dict)


class Watching(Protocol):
    """What is told of a migration while it goes on: its disks' mirrors first, then its memory."""

    def copied(self, job: JobNow) -> None: ...
    def moved(self, migration: MigrationNow) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Where disks go with their machine: into new images in `directory`, with at most `speed` bytes a second (0: as
    fast as it goes); '': they are shared."""

    directory: str = ""
    speed: int = 0


def migrate(world: World, name: str, storage: Storage, tell: Tell, watch: Watching) -> Migrated:
    """Move a machine. Raises PlanRefused before anything is changed; when it breaks off, the guest goes on where it
    was."""
    from nvlane.cli.service.runs import machine_pid

    with at_work(world, name, tell) as work:
        start = _start(work)
        runtime = _next_runtime(work.record.machine.runtime)
        board = _next_board(work.record)
        reasons = tuple(_refusals(work, world, board, copying=bool(storage.directory)))
        if reasons:
            raise PlanRefused(name, reasons, work.record.lane_name)
        copies = copies_of(work.record, storage.directory) if storage.directory else ()
        must_be_writable(copies)
        cut = WorkRecord(
            id="migration", disk="", first=work.journal.next_n, runtime=runtime, copies=new_images(world, copies)
        )
        target, jobs = f"{runtime}/qmp.sock", tuple(copy.job for copy in copies)
        move = MigrateMachine(
            machine=name, source=work.record.qmp, target=target, socket=f"{runtime}/migrate.sock", jobs=jobs, nodes=jobs
        )
        _watched(work, copies, watch)
        work.begin(cut)
        try:
            # Where it breaks off, the way back depends on where the guest is: the loop's own undo does not ask.
            work.do(tuple(_steps(work, start, cut, copies, board.machine)), keep=True)
            work.do(tuple(fill(work.record, copies, f"{runtime}/nbd.sock", target, storage.speed)), keep=True)
            wait_until_filled(work, copies, watch.copied)
            work.do((move,), keep=True)
            with Qmp.connect(work.record.qmp) as monitor:
                downtime = migration(monitor).downtime
        except BaseException:
            tell.phase("finding out where the guest is")
            settle_migration(work, cut).raise_for_failed()
            stayed = work.record.machine.runtime != runtime
            for path in (copy.path for copy in copies if stayed and world.host.exists(copy.path)):
                tell.phase(f"{path} is a whole copy, and is left")
            raise
        go_over(work, cut).raise_for_failed()
        qmp = work.record.qmp
    disks = {copy.disk.name: copy.path for copy in copies}
    pid = machine_pid(world, world.store.read(name))
    return Migrated(machine=name, pid=pid, qmp=qmp, downtime=downtime, disks=disks)


def _watched(work: Work, copies: tuple[DiskCopy, ...], watch: Watching) -> None:
    """The move is watched; from when the copies are whole, before the guest goes on at them, they are kept whatever
    happens."""

    def whole() -> None:
        work.settle_images([copy.path for copy in copies], "it is a whole copy")

    operation: Operation[Any] = MigrateMachineOperation(QemuMigrator(watch.moved, whole))
    table = work.world.operations
    forward = {**table.forward, MigrateMachine: operation}
    work.world = dataclasses.replace(work.world, operations=dataclasses.replace(table, forward=forward))


def _start(work: Work) -> StartMachine | ReceiveMachine:
    for entry in work.journal.entries():
        if isinstance(entry.step, StartMachine | ReceiveMachine) and not entry.undone:
            return entry.step
    raise Bug(f"{work.record.name} is up, and no step started it")


def _next_runtime(now: str) -> str:
    """The directory of the next QEMU: NAME, NAME~2, NAME~3, ..."""
    base, mark, number = now.rpartition("~")
    return f"{base}~{int(number) + 1}" if mark and number.isdecimal() else f"{now}~2"


def _steps(
    work: Work,
    start: StartMachine | ReceiveMachine,
    cut: WorkRecord,
    copies: tuple[DiskCopy, ...],
    machine: MachineDevice,
) -> Iterator[Step]:
    runtime, record = cut.runtime, on_copies(work.record, cut.copies)
    yield from create(copies)
    yield MakeDirectory(path=runtime)
    sockets = dict[str, str]()
    for target in _targets(work):
        if target.export is None:
            continue
        # By its own name, for a lane that was attached has it in the directory of the machine's first QEMU.
        directory = f"{runtime}/{PurePosixPath(target.directory).name}"
        socket = f"{directory}/{PurePosixPath(target.export.socket).name}"
        sockets[target.export.socket] = socket
        yield MakeDirectory(path=directory)
        yield dataclasses.replace(target, directory=directory, export=dataclasses.replace(target.export, socket=socket))
    yield ReceiveMachine(
        binary=start.binary,
        machine=dataclasses.replace(machine, boot=record.machine.boot, runtime=runtime),
        devices=elsewhere(_devices(record), sockets),
        memlock=start.memlock,
    )


def _next_board(record: MachineRecord) -> NextBoard:
    changed = any(lane.text or lane.detached for lane in record.lanes)
    with Qmp.connect(record.qmp) as monitor:
        return next_board(monitor, record.machine, _devices(record), changed=changed)


def _devices(record: MachineRecord) -> tuple[Device, ...]:
    return tuple(device for lane in record.present for device in lane.devices)


def _targets(work: Work) -> Iterator[StartTarget]:
    for entry in work.journal.entries():
        if isinstance(entry.step, StartTarget) and not entry.undone:
            yield entry.step


def _refusals(work: Work, world: World, board: NextBoard, *, copying: bool) -> Iterator[Refusal]:
    """What QEMU says stands in the way, and what it cannot know: that two of them on one host would share it."""
    record = work.record
    for reason in blocked(record.qmp):
        yield _refuse(None, "migration-blocked", f"QEMU: {reason}", "take a lane that migrates: nvlane advise --matrix")
    for job in record.work:
        yield _refuse(None, "job-runs", f"{job.disk} is being copied", f"nvlane jobs {record.name} --cancel {job.id}")
    yield from _board_refusals(record, board)
    for lane in record.present:
        yield from _lane_refusals(lane.number, lane.kind, lane.devices)
    for disk in disks_of(record):
        if disk.kind == "drive" and disk.lane is not None and not copying:
            yield _refuse(
                disk.lane.number, "drive-not-shared", "one controller cannot be driven by two QEMUs at once",
                "--copy-storage moves the disk to a file on the way",
            )  # fmt: skip
    for target in _targets(work):
        yield from _target_refusals(work, target)
    with Qmp.connect(record.qmp) as monitor:
        state = inspect.status(monitor)
    if state != "running":
        yield _refuse(None, "not-running", f"the machine is '{state}'", "let its guest run")
    yield from _memory_refusals(record, world)


def _board_refusals(record: MachineRecord, board: NextBoard) -> Iterator[Refusal]:
    if board.displaced:
        yield _refuse(
            None, "lanes-changed", f"lanes were attached or detached while it ran: a new QEMU would give "
            f"{', '.join(board.displaced)} other slots", "bring the machine down and up with the spec that it has now",
        )  # fmt: skip
    for lane in record.lanes:
        if lane.kind == LaneKind.NVDIMM and (lane.text or lane.detached):
            yield _refuse(
                lane.number, "lanes-changed", "it was attached or detached while the machine ran: a new QEMU would lay "
                "memory out in another way", "bring the machine down and up with the spec that it has now",
            )  # fmt: skip


def _lane_refusals(number: int, kind: str, devices: tuple[Device, ...]) -> Iterator[Refusal]:
    """Memory that both QEMUs would map: the second would write old pages over what the guest has just stored."""
    if kind != LaneKind.NVDIMM:
        return
    for device in devices:
        if isinstance(device, Object) and device.properties.get("mem-path"):
            yield _refuse(
                number, "memory-shared", f"{device.properties['mem-path']} would be mapped by both QEMUs at once",
                "take backing = \"memory\", or bring the machine down",
            )  # fmt: skip


def _target_refusals(work: Work, target: StartTarget) -> Iterator[Refusal]:
    lane = next((one for one in work.record.present if target.name == f"{work.record.name}.{one.name}"), None)
    number, export = lane.number if lane else None, target.export
    if not ENGINES[target.engine].reconnects:
        yield _refuse(
            number, "engine-migration", f"{target.engine} does not tell QEMU which pages it writes",
            'engine = "nvlane" does',
        )  # fmt: skip
    elif export is not None and export.address is not None:
        yield _refuse(
            number, "drive-not-shared", "one controller cannot be driven by two targets at once",
            "take the fabrics lane, which both can connect to",
        )  # fmt: skip
    elif export is not None and export.malloc:
        yield _refuse(
            number, "memory-not-shared", "what is in the memory of one target is not in that of another", "take a file"
        )


def _memory_refusals(record: MachineRecord, world: World) -> Iterator[Refusal]:
    """For a while there are two of the guest's memory."""
    machine = record.machine
    if machine.hugepage:
        name = f"/sys/kernel/mm/hugepages/hugepages-{machine.hugepage // 1024}kB/free_hugepages"
        free, what = int(world.host.read_text(name)) * machine.hugepage, "free hugepages"
    else:
        free, what = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "free memory"
    if free < machine.memory:
        yield _refuse(
            None, "memory-twice", f"a second QEMU needs {machine.memory} bytes, and there are {free} bytes of {what}",
            "make room, or bring the machine down and up",
        )  # fmt: skip


def _refuse(lane: int | None, code: str, reason: str, remedy: str) -> Refusal:
    return Refusal(code=code, lane=lane, reason=reason, remedy=remedy)


def no_other_place(to: str) -> None:
    """Raises HostError for anything but this host."""
    if to != "local":
        raise HostError(
            f"'{to}': nvlane moves machines between two QEMUs of one host only",
            remedy="--to local; or nvlane down here, copy the images, and nvlane up there",
        )
