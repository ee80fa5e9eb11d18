"""What stands of a run right now: is its machine up, is somebody at work on it, or was it left by a crash?"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import UnionType
from typing import Final

from nvlane.apply.lock import locked_directory
from nvlane.apply.operations.found import MadeProcess
from nvlane.apply.operations.processes import boot_id, start_time_of
from nvlane.apply.store import HOST_RUN, RunRecord
from nvlane.cli.service.record import DomainPlace, MachineRecord, recall
from nvlane.cli.service.world import World
from nvlane.model.errors import HostError, NvlaneError
from nvlane.plan.migrate_step import ReceiveMachine
from nvlane.plan.step import StartMachine, StartTarget

#: The note of a run that is a target without a machine: whether its start was complete.
TARGET_NOTE: Final = "target"
#: The note of a run of `nvlane fabrics`: its kind ('export', 'connection'), NQN, and whether it was complete.
FABRICS_NOTE: Final = "fabrics"


class RunState(StrEnum):
    UP = "up"
    SHUT_OFF = "shut off"  # a libvirt domain that has its lanes and does not run
    UNREACHED = "not reached"  # a libvirt domain, and libvirt does not answer
    PREPARED = "prepared"  # what `nvlane host setup` did stands
    BUSY = "busy"  # another nvlane is at work on it
    LEFT = "left"  # cut short, or its machine has ended: `nvlane restore`
    DAMAGED = "damaged"  # its journal cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A run, its state, and the process of its machine (0: none)."""

    run: RunRecord
    state: RunState
    pid: int = 0
    record: MachineRecord | None = None
    why: str = ""


def look_at(world: World, name: str) -> Seen:
    """One run as it stands."""
    run = world.store.read(name)
    if run.error:
        return Seen(run=run, state=RunState.DAMAGED, why=run.error)
    try:
        with locked_directory(run.path, what=f"the run '{name}'"):
            pass
    except HostError as error:
        return Seen(run=run, state=RunState.BUSY, why=error.message)
    if name == HOST_RUN:
        cut_short = [entry for entry in run.outstanding if not entry.done and not entry.error]
        why = f"'{cut_short[0].step.describe()}' was cut short" if cut_short else ""
        return Seen(run=run, state=RunState.LEFT if cut_short else RunState.PREPARED, why=why)
    if TARGET_NOTE in (run.notes or {}):
        return _look_at_target(world, run)
    if FABRICS_NOTE in (run.notes or {}):
        return _look_at_fabrics(world, run)
    try:
        record = recall(name, run.notes)
    except HostError as error:
        return Seen(run=run, state=RunState.DAMAGED, why=error.message)
    if record is not None and record.domain is not None:
        return _look_at_domain(world, run, record, record.domain)
    pid = machine_pid(world, run)
    if record is None or not record.complete:
        return Seen(run=run, state=RunState.LEFT, pid=pid, record=record, why="`up` was cut short")
    if not pid:
        return Seen(run=run, state=RunState.LEFT, record=record, why=_ending(world, run, record))
    return Seen(run=run, state=RunState.UP, pid=pid, record=record)


def _look_at_target(world: World, run: RunRecord) -> Seen:
    pid = _pid_of(world, run, StartTarget)
    if not (run.notes or {})[TARGET_NOTE].get("complete"):
        return Seen(run=run, state=RunState.LEFT, pid=pid, why="`target start` was cut short")
    if not pid:
        return Seen(run=run, state=RunState.LEFT, why="the target has ended")
    return Seen(run=run, state=RunState.UP, pid=pid)


def _look_at_fabrics(world: World, run: RunRecord) -> Seen:
    note = (run.notes or {})[FABRICS_NOTE]
    if not note.get("complete"):
        return Seen(run=run, state=RunState.LEFT, why=f"the {note.get('kind')} was cut short")
    if run.begin is not None and run.begin.boot_id != boot_id(world.host):
        return Seen(run=run, state=RunState.LEFT, why="the host was booted anew since")
    return Seen(run=run, state=RunState.UP)


def _look_at_domain(world: World, run: RunRecord, record: MachineRecord, place: DomainPlace) -> Seen:
    def seen(state: RunState, why: str = "") -> Seen:
        return Seen(run=run, state=state, record=record, why=why)

    if not record.complete or cut_short(run, record):
        return seen(RunState.LEFT, "it was cut short")
    now = boot_id(world.host)
    if any(entry.boot_id != now and entry.step.VOLATILE for entry in run.outstanding):
        return seen(RunState.LEFT, "the host was booted anew since: what the lanes need of it is gone")
    try:
        found = world.operations.domains.look(place.uri, place.uuid)
    except NvlaneError as error:
        return seen(RunState.UNREACHED, error.message)
    if not found.xml:
        return seen(RunState.LEFT, f"the domain {place.name} was undefined meanwhile")
    return seen(RunState.UP if found.number >= 0 else RunState.SHUT_OFF)


def cut_short(run: RunRecord, record: MachineRecord) -> tuple[int, ...]:
    """The steps of an `attach` that never came to its end: no lane knows them."""
    known = {number for lane in record.lanes for number in lane.steps} | set(record.shared)
    return tuple(entry.n for entry in run.outstanding if entry.n not in known)


def machine_pid(world: World, run: RunRecord) -> int:
    """The process of a run's machine, proven by its start time; 0 when it has ended."""
    return _pid_of(world, run, StartMachine | ReceiveMachine)


def _pid_of(world: World, run: RunRecord, kind: type[StartTarget | StartMachine] | UnionType) -> int:
    for entry in run.outstanding:
        made = entry.result
        if isinstance(entry.step, kind) and isinstance(made, MadeProcess):
            same_boot = entry.boot_id == boot_id(world.host)
            if same_boot and start_time_of(world.host, made.pid) == made.start_time:
                return made.pid
    return 0


def _ending(world: World, run: RunRecord, record: MachineRecord) -> str:
    if run.begin is not None and run.begin.boot_id != boot_id(world.host):
        return "the host was booted anew since"
    return f"its QEMU has ended; its last words are in {record.machine.runtime}/qemu.log"


def must_be_up(world: World, name: str) -> Seen:
    """A machine that is up. Raises HostError with what it is instead."""
    if not world.store.has(name) or name == HOST_RUN:
        up = [other for other in world.store.names() if other != HOST_RUN]
        known = f"there are: {', '.join(up)}" if up else "none is up; nvlane up SPEC starts one"
        raise HostError(f"there is no machine '{name}'", remedy=known)
    seen = look_at(world, name)
    if seen.state in (RunState.SHUT_OFF, RunState.UNREACHED):
        raise HostError(f"{name} is {seen.state}{': ' if seen.why else ''}{seen.why}", remedy=f"virsh start {name}")
    if seen.state is not RunState.UP:
        remedy = "wait for it" if seen.state is RunState.BUSY else f"nvlane restore {name} puts the host back"
        raise HostError(f"{name} is not up: {seen.why}", remedy=remedy)
    if seen.record is None:
        if FABRICS_NOTE in (seen.run.notes or {}):
            raise HostError(f"{name} is no machine", remedy="nvlane fabrics list shows what it is")
        raise HostError(f"{name} is a target without a machine", remedy=f"nvlane target status {name} shows it")
    return seen
