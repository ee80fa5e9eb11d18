"""`down` and `restore`: the journal backwards."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Collection
from dataclasses import dataclass

from nvlane.apply.journal import Journal
from nvlane.apply.undo import UndoReport, plan_undo, undo
from nvlane.cli.service.block_work import Work, put_right
from nvlane.cli.service.domain_away import take_lanes_away
from nvlane.cli.service.proofs import read_early, read_late
from nvlane.cli.service.record import MachineRecord, recall
from nvlane.cli.service.runs import RunState, Seen, look_at
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.model.claim import Evidence
from nvlane.model.device import BootDisk
from nvlane.model.errors import HostError, WireError
from nvlane.plan.migrate_step import ReceiveMachine
from nvlane.plan.step import StartMachine
from nvlane.wire.qmp import Qmp


@dataclass(frozen=True, slots=True, kw_only=True)
class WentDown:
    """What came of an undo: the fate of each step, and what the host reads of the guest's proofs."""

    name: str
    report: UndoReport
    proofs: tuple[Evidence, ...] = ()


def take_down(world: World, name: str, tell: Tell, *, shutdown: float) -> WentDown:
    """End a machine and put the host back. A guest of the user's own is asked to shut down first, and has `shutdown`
    seconds for it (0: it is not asked). What could not be put back is in the report, and the journal stays for it."""
    if not world.store.has(name):
        raise HostError(f"there is no run '{name}'", remedy="nvlane status shows what there is")
    seen = look_at(world, name)
    if seen.state in (RunState.BUSY, RunState.DAMAGED):
        raise HostError(seen.why)
    if seen.record is not None and seen.record.domain is not None:
        return _domain_down(world, seen, seen.record, tell, shutdown)
    if seen.state is RunState.UP and seen.record is not None and shutdown > 0:
        _ask_to_shut_down(seen, seen.record, tell, shutdown)
    with world.store.open(name) as journal:
        return _undo(world, name, journal, tell)


def _domain_down(world: World, seen: Seen, record: MachineRecord, tell: Tell, shutdown: float) -> WentDown:
    report, proofs = take_lanes_away(world, seen, tell, shutdown=shutdown)
    if not report.failed:
        with world.store.open(record.name) as journal:
            if not plan_undo(journal, world.operations):
                try:
                    proofs = (*proofs, *read_late(world, record, tell))
                finally:
                    world.store.remove(journal)
    return WentDown(name=record.name, report=report, proofs=proofs)


def _undo(world: World, name: str, journal: Journal, tell: Tell) -> WentDown:
    record = recall(name, journal.notes())
    if record is not None and record.work:
        # While QEMU still can say where a disk is: a copy that its guest has gone over to must not be removed.
        work = Work(world, journal, record, tell)
        put_right(work)
        record = work.record
    # The machine first: while it runs, its guest would be asked to let go of each attached lane, and may not answer.
    machines = [entry for entry in journal.entries() if isinstance(entry.step, StartMachine | ReceiveMachine)]
    started = [entry.n for entry in machines if not entry.undone]
    report = _backwards(world, journal, tell, only=started)
    # A namespace of a fabric is read while this host is still connected: afterwards it is only at its Target.
    early = read_early(world, record, tell) if record is not None and not report.failed else ()
    if not report.failed:
        rest = _backwards(world, journal, tell)
        report = UndoReport(steps=(*report.steps, *rest.steps))
    if report.failed:
        return WentDown(name=name, report=report, proofs=early)
    try:
        proofs = (*early, *read_late(world, record, tell)) if record is not None else ()
    finally:
        world.store.remove(journal)
    return WentDown(name=name, report=report, proofs=proofs)


def _backwards(world: World, journal: Journal, tell: Tell, *, only: Collection[int] | None = None) -> UndoReport:
    return undo(
        journal,
        host=world.host,
        operations=world.operations,
        progress=tell,
        only=only,
        lock=world.store.host_lock,
    )


def _ask_to_shut_down(seen: Seen, record: MachineRecord, tell: Tell, deadline: float) -> None:
    """Press the power button of a guest with a disk of its own, and wait for QEMU to end."""
    if not isinstance(record.machine.boot, BootDisk):
        return
    tell.phase(f"asking {record.name} to shut down")
    try:
        process = os.pidfd_open(seen.pid)
    except ProcessLookupError:
        return
    try:
        with Qmp.connect(record.qmp) as monitor:
            monitor.execute("system_powerdown")
        if not select.select([process], [], [], deadline)[0]:
            tell.phase(f"{record.name} did not shut down within {deadline:g} s; it is ended")
    except WireError as error:
        tell.phase(f"{record.name} could not be asked: {error.message}")
    finally:
        os.close(process)


def leftovers(world: World) -> tuple[Seen, ...]:
    """The runs that `restore` without a name would put back."""
    return tuple(seen for name in world.store.names() if (seen := look_at(world, name)).state is RunState.LEFT)


def forget(world: World, name: str) -> tuple[str, ...]:
    """Remove a journal without undoing anything; what it would have undone, a line each."""
    seen = look_at(world, name)
    if seen.state is RunState.BUSY:
        raise HostError(seen.why)
    lines = tuple(entry.step.describe() for entry in seen.run.outstanding)
    if seen.state is RunState.DAMAGED:
        shutil.rmtree(seen.run.path)
        return (seen.why,)
    with world.store.open(name) as journal:
        world.store.remove(journal)
    return lines
