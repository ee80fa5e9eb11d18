"""Work on the disks of a machine that runs: begun, seen through or left to itself, and settled or undone.

::

    keep(work) ──> steps (image, node, job) ──> ... ──> settle: the files are the user's, the record says what is so
                         │ fails, or Ctrl-C
                         └──> the steps backwards, work forgotten

Killed at any point, the machine runs on with the old disk or the new one; `restored` asks QEMU which.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from nvlane.apply import migrate_qemu
from nvlane.apply.executor import apply
from nvlane.apply.journal import Journal
from nvlane.apply.record import Undone
from nvlane.apply.undo import UndoReport, undo
from nvlane.cli.service.disks import Disk, disks_of, moved, place_of
from nvlane.cli.service.record import MachineRecord, WorkRecord, keep, recall
from nvlane.cli.service.runs import RunState, look_at, must_be_up
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.model.device import BlockNode, Device, SocketChardev
from nvlane.model.errors import Bug, HostError
from nvlane.plan.block_step import StartBlockJob
from nvlane.plan.migrate_step import MigrateMachine, ReceiveMachine, ServeDisks
from nvlane.plan.step import CreateImage, PlugDevices, StartMachine, StartTarget, Step
from nvlane.qemu import blocks
from nvlane.wire.lines import PeerClosed
from nvlane.wire.qmp import Qmp

#: Seconds for a second QEMU to begin, once it has all of the machine.
SENT: Final = 120.0
#: What a migration does to the first QEMU, with which it goes, or to the second one before that has the guest; so does
#: what was plugged into the first one.
_FIRST_S: Final = (MigrateMachine, ServeDisks, StartBlockJob)
_OF_QEMU: Final = (StartMachine, ReceiveMachine, StartTarget)


class Work:
    """One verb's work on one machine, with its journal open. `record` is always what the journal has."""

    def __init__(self, world: World, journal: Journal, record: MachineRecord, tell: Tell) -> None:
        self.world = world
        self.journal = journal
        self.record = record
        self.tell = tell

    def keep(self, record: MachineRecord) -> None:
        self.record = record
        keep(self.journal, record)

    def do(self, steps: Sequence[Step], *, keep: bool = False) -> tuple[int, ...]:
        return apply(
            steps,
            keep=keep,
            host=self.world.host,
            journal=self.journal,
            operations=self.world.operations,
            progress=self.tell,
            lock=self.world.store.host_lock,
        )

    def undo(self, numbers: Sequence[int]) -> UndoReport:
        return undo(
            self.journal,
            host=self.world.host,
            operations=self.world.operations,
            progress=self.tell,
            only=numbers,
            lock=self.world.store.host_lock,
        )

    def begin(self, work: WorkRecord) -> None:
        self.keep(dataclasses.replace(self.record, work=(*self.record.work, work)))

    def forget(self, work: WorkRecord) -> None:
        self.keep(without(self.record, work))

    def numbers(self, work: WorkRecord) -> tuple[int, ...]:
        """The steps of a work that are not settled."""
        mine = work.steps or tuple(range(work.first, self.journal.next_n))
        return tuple(entry.n for entry in self.journal.entries() if entry.n in mine and not entry.undone)

    def settle(self, work: WorkRecord, why: str) -> None:
        """What the work made is the user's now: nothing of it will be undone."""
        for number in self.numbers(work):
            self.journal.append(Undone(n=number, kept=why))

    def settle_images(self, paths: Sequence[str], why: str) -> None:
        """Images that nvlane made, and that something else rests on now."""
        for entry in self.journal.entries():
            if not entry.undone and isinstance(entry.step, CreateImage) and entry.step.path in paths:
                self.journal.append(Undone(n=entry.n, kept=why))

    def give_up(self, work: WorkRecord) -> UndoReport:
        """The work backwards; it is forgotten when nothing of it is left."""
        report = self.undo(self.numbers(work))
        if not report.failed:
            self.forget(work)
        return report

    def move(self, work: WorkRecord, why: str) -> None:
        """The disk is on the work's target for good."""
        target = work.target
        if target is None:
            raise Bug(f"the work {work.id} moves no disk")
        disk = self.disk(work.disk)
        if work.over:
            self.settle_images((disk.path,), f"{target.node_name} rests on it")
        self.settle(work, why)
        self.keep(without(moved(self.record, disk, target, over=work.over), work))

    def disk(self, name: str) -> Disk:
        return next(disk for disk in disks_of(self.record) if disk.name == name)

    def work(self, name: str) -> WorkRecord:
        for work in self.record.work:
            if work.id == name:
                return work
        known = ", ".join(work.id for work in self.record.work) or "none"
        raise HostError(f"{self.record.name} has no job '{name}'", remedy=f"there are: {known}")

    @contextlib.contextmanager
    def undone_on_failure(self, work: WorkRecord) -> Iterator[None]:
        """Whatever breaks this off, Ctrl-C too, undoes the work first."""
        self.begin(work)
        try:
            yield
        except BaseException:
            if work in self.record.work:
                self.tell.phase(f"taking {work.id} back")
                self.give_up(work).raise_for_failed()
            raise


def without(record: MachineRecord, work: WorkRecord) -> MachineRecord:
    return dataclasses.replace(record, work=tuple(other for other in record.work if other.id != work.id))


@contextlib.contextmanager
def at_work(world: World, name: str, tell: Tell) -> Iterator[Work]:
    """Work on a machine that is up, alone. What an earlier nvlane left in the middle is put right first."""
    seen = must_be_up(world, name)
    if seen.record is None:
        raise Bug(f"{name} is up without a record")
    if seen.record.domain is not None:
        raise HostError(
            f"{name} is a domain of libvirt, whose disks are its business",
            remedy=f"virsh snapshot-create, blockcopy, backup-begin, blkdeviotune, blockresize or migrate {name}",
        )
    with world.store.open(name) as journal:
        record = recall(name, journal.notes()) or seen.record
        work = Work(world, journal, record, tell)
        put_right(work)
        yield work


def put_right(work: Work) -> UndoReport:
    """See through, or take back, what was cut short: by what QEMU says the disk is on now."""
    steps = UndoReport(steps=())
    for cut in [one for one in work.record.work if not one.left or _is_on(work.record, one)]:
        if cut.runtime:
            report = settle_migration(work, cut)
            steps = UndoReport(steps=(*steps.steps, *report.steps))
        elif _is_on(work.record, cut):
            work.move(cut, "the disk is on it")
        else:
            report = work.give_up(cut)
            steps = UndoReport(steps=(*steps.steps, *report.steps))
    return steps


def settle_migration(work: Work, cut: WorkRecord) -> UndoReport:
    """By where the guest runs: the first QEMU ends, or the second."""
    target = f"{cut.runtime}/qmp.sock"
    if migrate_qemu.has_arrived(target, wait=SENT if migrate_qemu.was_sent(work.record.qmp) else 0):
        return go_over(work, cut)
    # The guest first: unless it goes on where it was, the second QEMU must not be ended.
    moves = [entry.n for entry in work.journal.entries() if isinstance(entry.step, MigrateMachine) and not entry.undone]
    report = work.undo([number for number in work.numbers(cut) if number in moves])
    if report.failed:
        return report
    rest = work.give_up(cut)
    return UndoReport(steps=(*report.steps, *rest.steps))


def go_over(work: Work, cut: WorkRecord) -> UndoReport:
    """The second QEMU is the machine's: the record names it, and what the first one had goes."""
    mine = work.numbers(cut)
    entries = {entry.n: entry for entry in work.journal.entries() if not entry.undone}
    for number, entry in entries.items():
        if isinstance(entry.step, PlugDevices) or (number in mine and isinstance(entry.step, _FIRST_S)):
            work.journal.append(Undone(n=number, kept="it is there"))
    work.settle_images([place_of(node)[0] for node in cut.copies.values()], "the guest writes to it")
    old = [n for n, entry in entries.items() if n not in mine and isinstance(entry.step, _OF_QEMU)]
    targets = {entry.step.name: n for n, entry in entries.items() if n in mine and isinstance(entry.step, StartTarget)}
    names = {n: entry.step.name for n, entry in entries.items() if n in old and isinstance(entry.step, StartTarget)}
    moved = [n for n in old if n not in names or names[n] in targets]
    swap = {n: targets[name] for n, name in names.items() if name in targets}
    sockets = {_socket(entries[n].step): _socket(entries[new].step) for n, new in swap.items()}
    work.keep(in_runtime(on_copies(work.record, cut.copies), cut.runtime, swap, sockets))
    report = work.undo(moved)
    if not report.failed:
        work.forget(cut)
    return report


def on_copies(record: MachineRecord, copies: Mapping[str, BlockNode]) -> MachineRecord:
    """The record of a machine whose disks are on their copies."""
    for disk in [disk for disk in disks_of(record) if disk.name in copies]:
        record = moved(record, disk, copies[disk.name], over=False)
    return record


def in_runtime(
    record: MachineRecord, runtime: str, swap: Mapping[int, int], sockets: Mapping[str, str]
) -> MachineRecord:
    """The record of a machine whose sockets stand in another directory; `swap`: the steps that its targets have now;
    `sockets`: where those listened before, and where they do now."""
    lanes = tuple(
        dataclasses.replace(
            lane,
            devices=elsewhere(lane.devices, sockets),
            steps=tuple(swap.get(number, number) for number in lane.steps),
        )
        for lane in record.lanes
    )
    return dataclasses.replace(record, machine=dataclasses.replace(record.machine, runtime=runtime), lanes=lanes)


def elsewhere(devices: tuple[Device, ...], sockets: Mapping[str, str]) -> tuple[Device, ...]:
    """The same devices with the sockets of other targets."""
    return tuple(
        dataclasses.replace(device, path=sockets.get(device.path, device.path))
        if isinstance(device, SocketChardev)
        else device
        for device in devices
    )


def _socket(step: Step) -> str:
    """Where a machine's target listens."""
    return step.export.socket if isinstance(step, StartTarget) and step.export is not None else ""


def _is_on(record: MachineRecord, work: WorkRecord) -> bool:
    """Whether the disk of a work is on its target already. A machine that is gone tells nothing."""
    if work.target is None:
        return False
    disk = next((disk for disk in disks_of(record) if disk.name == work.disk), None)
    if disk is None:
        return False
    try:
        with Qmp.connect(record.qmp) as monitor:
            now = blocks.disk(monitor, disk.frontend)
    except PeerClosed:
        return False
    return now is not None and now.node == work.target.node_name


def is_cut_short(world: World, name: str) -> bool:
    """Whether a machine is up with work on its disks that nobody sees through."""
    seen = look_at(world, name)
    return seen.state is RunState.UP and seen.record is not None and any(not work.left for work in seen.record.work)


def finish_cut_short(world: World, name: str, tell: Tell) -> None:
    """Raises NotRestored when something of it could not be put back."""
    with world.store.open(name) as journal:
        record = recall(name, journal.notes())
        if record is not None:
            put_right(Work(world, journal, record, tell)).raise_for_failed()
