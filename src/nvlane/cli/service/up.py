"""`up`: spec, facts, plan, apply, verify."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from nvlane.apply.executor import apply
from nvlane.apply.journal import Journal
from nvlane.apply.undo import plan_undo
from nvlane.cli.service.bound import settle
from nvlane.cli.service.clock import Clock, StepClock
from nvlane.cli.service.record import LaneRecord, MachineRecord, keep
from nvlane.cli.service.refused import raise_if_refused
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.verify import verify_machine
from nvlane.cli.service.world import World, read_for
from nvlane.facts.shape import Facts
from nvlane.lanes.compose import make_plan
from nvlane.model.errors import Bug, WireError
from nvlane.plan.fabrics_step import BindNamespace, ConnectFabric
from nvlane.plan.plan import Plan
from nvlane.plan.step import BindDriver, StartMachine, StartTarget, Step
from nvlane.spec.document import Spec
from nvlane.spec.reader import parse_spec
from nvlane.targets.table import ENGINES


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecFile:
    """A spec file as it was read: its text goes into the journal, so that later verbs need no file."""

    path: str
    directory: str
    text: str

    def spec(self) -> Spec:
        return parse_spec(self.text, self.path, self.directory)


@dataclass(frozen=True, slots=True, kw_only=True)
class CameUp:
    """A machine that is up, and the seconds that each phase took."""

    record: MachineRecord
    seconds: Mapping[str, float]


def bring_up(
    world: World, file: SpecFile, tell: Tell, *, keep_on_failure: bool, check_guest: bool, deadline: float
) -> CameUp:
    """Bring a machine up and verify it; `deadline` is for its guest to boot, in seconds.

    Raises Refused before anything is changed, and the error of a step after what was done is undone. Evidence that is
    not as claimed is in the record; then, and with the WireError of a guest that does not answer, the machine stays
    up, so that a person can look.
    """
    clock = Clock()
    spec = file.spec()
    clock.lap("spec")
    facts = read_for(world, spec)
    clock.lap("facts")
    plan = make_plan(spec, facts, ENGINES)
    clock.lap("plan")
    raise_if_refused(plan, spec.machine.name, spec.lane_name)
    tell.notes(plan)
    record = _record(file, spec, plan)
    with world.store.create(spec.machine.name, world.host, spec=file.text) as journal:
        try:
            keep(journal, record)
            apply(
                plan.steps,
                host=world.host,
                journal=journal,
                operations=world.operations,
                progress=StepClock(tell, plan.steps, clock),
                keep=keep_on_failure,
                lock=world.store.host_lock,
            )
            record = dataclasses.replace(record, lanes=_lanes(spec, facts, plan, journal), complete=True)
            keep(journal, record)
        except BaseException:
            # A journal with nothing left to undo has done its work; one with something is for `nvlane restore`.
            if not keep_on_failure and not plan_undo(journal, world.operations):
                world.store.remove(journal)
            raise
        clock.lap("apply")
        if check_guest:
            try:
                record = verify_machine(journal, record, tell, clock=clock, write=True, deadline=deadline)
            except WireError as error:
                message = f"{record.name} is up, but could not be verified: {error.message}"
                raise WireError(message, remedy=error.remedy) from error
    return CameUp(record=record, seconds=clock.seconds)


def _record(file: SpecFile, spec: Spec, plan: Plan) -> MachineRecord:
    start = plan.steps[-1] if plan.steps else None
    if plan.machine is None or not isinstance(start, StartMachine):
        raise Bug("a plan without refusals has no machine, or does not end with its start")
    return MachineRecord(
        name=spec.machine.name,
        machine=plan.machine,
        binary=start.binary,
        source=file.path,
        directory=file.directory,
    )


def _lanes(spec: Spec, facts: Facts, plan: Plan, journal: Journal) -> tuple[LaneRecord, ...]:
    """Each lane with its own part of what was done, so that it can be detached alone."""
    numbers = {_whose(entry.step): entry.n for entry in journal.entries()}
    claims = settle(plan.claims, journal.entries())
    plans = [make_plan(_alone(spec, index), facts, ENGINES) for index in range(len(spec.lanes))]
    # What two lanes need (a connection to one subsystem) stays until the machine goes.
    takers = Counter(whose for alone in plans for whose in {_whose(step) for step in alone.steps})
    records = []
    for index, (lane, alone) in enumerate(zip(spec.lanes, plans, strict=True)):
        wanted = [whose for step in alone.steps if takers[whose := _whose(step)] == 1]
        records.append(
            LaneRecord(
                number=index,
                name=spec.lane_name(index),
                kind=str(lane.KIND),
                devices=alone.devices,
                claims=tuple(claim for claim in claims if claim.lane == index),
                steps=tuple(sorted(numbers[whose] for whose in wanted if whose and whose in numbers)),
            )
        )
    return tuple(records)


def _alone(spec: Spec, index: int) -> Spec:
    lane = dataclasses.replace(spec.lanes[index], name=spec.lane_name(index))
    return Spec(machine=spec.machine, lanes=(lane,), source=spec.source)


def _whose(step: Step) -> str:
    """What makes a step the step of one lane; '' for the steps that lanes share."""
    match step:
        case BindDriver():
            return f"bind {step.address}"
        case StartTarget():
            return f"target {step.name}"
        case ConnectFabric() | BindNamespace():
            return step.describe()
        case _:
            return ""
