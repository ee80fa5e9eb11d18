"""`target`: the vhost-user targets of machines (MACHINE.LANE) and those that stand alone, from any shell.

A target that stands alone is a run of its own, like a machine: journaled, and undone by `target stop`, `down` or
`restore`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nvlane.apply.again import end_target, start_target_again, target_processes
from nvlane.apply.executor import apply
from nvlane.apply.journal import Entry
from nvlane.apply.store import HOST_RUN, RunRecord
from nvlane.apply.undo import plan_undo
from nvlane.cli.service.record import MachineRecord, recall
from nvlane.cli.service.refused import raise_if_refused
from nvlane.cli.service.runs import TARGET_NOTE, machine_pid
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World, read_host
from nvlane.lanes.standalone import WantedTarget, make_target_plan, spec_of
from nvlane.model.errors import HostError, SpecError, WireError
from nvlane.plan.plan import Plan
from nvlane.plan.step import StartTarget
from nvlane.qemu import inspect
from nvlane.spec.nearest import nearest
from nvlane.spec.validate import check as check_spec
from nvlane.targets.native_module import check_config
from nvlane.targets.program import packaged_target
from nvlane.targets.table import ENGINES
from nvlane.wire.qmp import Qmp

#: Seconds that QEMU may take to connect to a target that was started anew: it tries every 20 ms, and its guest may be
#: emulated.
RECONNECT_DEADLINE: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTarget:
    """A target as its journal tells it; `pid` 0: it has ended. `machine` is None for one that stands alone."""

    run: RunRecord
    entry: Entry
    step: StartTarget
    pid: int
    machine: MachineRecord | None

    @property
    def name(self) -> str:
        return self.step.name

    @property
    def lane(self) -> str:
        """The lane's name, '' for one that stands alone."""
        return self.name.removeprefix(f"{self.run.name}.") if self.machine else ""


def all_targets(world: World) -> tuple[SeenTarget, ...]:
    """Every target of every run, in the order of their names."""
    return tuple(sorted(_targets(world), key=lambda seen: seen.name))


def _targets(world: World) -> Iterator[SeenTarget]:
    for run in world.store.runs():
        started = [entry for entry in run.outstanding if isinstance(entry.step, StartTarget)]
        if not started or run.error:
            continue
        try:
            machine = recall(run.name, run.notes)
        except HostError:
            continue  # a journal of another version: `nvlane status` names it
        for entry in started:
            assert isinstance(entry.step, StartTarget)
            living = target_processes(world.host, world.operations.forward[StartTarget], entry)
            pid = living[0].pid if living else 0
            yield SeenTarget(run=run, entry=entry, step=entry.step, pid=pid, machine=machine)


def find_target(world: World, name: str) -> SeenTarget:
    """The target of this name. Raises HostError with those that there are."""
    every = all_targets(world)
    for seen in every:
        if seen.name == name:
            return seen
    names = [seen.name for seen in every]
    known = f"there are: {', '.join(names)}" if names else "there is none; nvlane target start makes one"
    raise HostError(f"there is no target '{name}'{nearest(name, names)}", remedy=known)


def living_target(world: World, name: str) -> SeenTarget:
    """A target that runs. Raises HostError."""
    seen = find_target(world, name)
    if not seen.pid:
        log = f"{seen.step.directory}/target.log"
        raise HostError(
            f"the target {name} has ended", remedy=f"its last words are in {log}; nvlane target start {name}"
        )
    return seen


def plan_target(world: World, wanted: WantedTarget) -> Plan:
    """What starting a target that stands alone would do. Raises SpecError for what is not to be had at all."""
    spec = spec_of(wanted)
    if wanted.source is not None:
        for problem in check_spec(spec):
            if problem.place.startswith("lane"):
                raise SpecError(problem.message, place=problem.place.partition(".")[2], remedy=problem.remedy)
    if wanted.config:
        check_config(wanted.config, world.host.read_text(wanted.config))
    facts = read_host(world, probe_kvm=False, specs=(spec,))
    return make_target_plan(wanted, facts, ENGINES)


def start_target(world: World, wanted: WantedTarget, tell: Tell) -> SeenTarget:
    """Start a target that stands alone. Raises Refused, or the error of a step after what was done is undone."""
    if wanted.name == HOST_RUN:
        raise HostError(f"'{HOST_RUN}' is the record of nvlane host", remedy="take another name")
    if any(seen.name == wanted.name for seen in all_targets(world)):
        raise HostError(f"there is a target '{wanted.name}' already", remedy=f"nvlane target status {wanted.name}")
    plan = plan_target(world, wanted)
    raise_if_refused(plan, wanted.name, lambda _: "")
    with world.store.create(wanted.name, world.host) as journal:
        try:
            journal.note(TARGET_NOTE, {"complete": False})
            apply(
                plan.steps,
                host=world.host,
                journal=journal,
                operations=world.operations,
                progress=tell,
                lock=world.store.host_lock,
            )
            journal.note(TARGET_NOTE, {"complete": True})
        except BaseException:
            if not plan_undo(journal, world.operations):
                world.store.remove(journal)
            raise
    return find_target(world, wanted.name)


def start_again(world: World, seen: SeenTarget, tell: Tell) -> SeenTarget:
    """End what runs of a target, start it with today's program and its saved state, and see its guest come back.

    Raises HostError for an engine whose guests would lose what was in flight, and WireError when QEMU does not
    connect.
    """
    engine = ENGINES[seen.step.engine]
    if not engine.reconnects:
        raise HostError(
            f"the guest of {seen.name} would lose its disk: {seen.step.engine} keeps nothing of what is in flight",
            remedy='engine = "nvlane" does; or bring the machine down and up again',
        )
    step = dataclasses.replace(seen.step, binary=_program_today(world, seen.step))
    tell.phase(f"starting {seen.name} in the place of process {seen.pid}" if seen.pid else f"starting {seen.name}")
    with world.store.open(seen.run.name) as journal, world.store.host_lock():
        operation = world.operations.forward[StartTarget]
        entry = next(entry for entry in journal.entries() if entry.n == seen.entry.n)
        start_target_again(world.host, operation, engine, journal, entry, step)
    again = find_target(world, seen.name)
    if again.machine is not None and machine_pid(world, again.run):
        _wait_for_guest(world, again, again.machine, tell)
    return again


def _program_today(world: World, step: StartTarget) -> str:
    """The program of this nvlane, which may be newer than the one that the target was started with."""
    path = packaged_target()
    if not world.host.exists(path):
        raise HostError(f"cannot start {step.name} anew: there is no {path}", remedy="make install-tools builds it")
    return path


def _wait_for_guest(world: World, seen: SeenTarget, machine: MachineRecord, tell: Tell) -> None:
    tell.phase(f"waiting for QEMU of {machine.name} to connect")
    link = f"{seen.lane}-link"

    def connected() -> bool:
        with Qmp.connect(machine.qmp) as monitor:
            return any(chardev.id == link and chardev.connected for chardev in inspect.chardevs(monitor))

    if not world.host.wait_until(connected, deadline=RECONNECT_DEADLINE):
        raise WireError(
            f"{seen.name} runs, but QEMU of {machine.name} does not connect to it within {RECONNECT_DEADLINE:g} s",
            remedy="QEMU before 9.2 never does; then only down and up help. "
            f"Logs: {machine.machine.runtime}/qemu.log, {seen.step.directory}/target.log",
        )


def stop_process(world: World, seen: SeenTarget) -> None:
    """End the target of a machine and leave all else: its guest waits for `start`."""
    with world.store.open(seen.run.name), world.store.host_lock():
        end_target(world.host, world.operations.forward[StartTarget], seen.entry)


def reachable(seen: SeenTarget) -> str:
    """'' for a target with an RPC socket that answers JSON-RPC, else why not."""
    if seen.step.engine != "nvlane":
        return f"{seen.name} is a {seen.step.engine}, which speaks QMP ({seen.step.directory}/qmp.sock)"
    return "" if seen.pid else f"{seen.name} has ended"
