"""`up` for a spec with machine.connect: every lane given to a libvirt domain, and the domain started."""

from __future__ import annotations

import dataclasses

from nvlane.apply.executor import apply
from nvlane.apply.journal import Journal
from nvlane.apply.undo import undo
from nvlane.cli.service.clock import Clock
from nvlane.cli.service.domain import (
    Ask,
    Given,
    Where,
    decide,
    domain_journal,
    give_lane,
    new_record,
    offer,
)
from nvlane.cli.service.domain_sight import DomainSight, see
from nvlane.cli.service.record import MachineRecord, keep
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.up import CameUp, SpecFile
from nvlane.cli.service.verify import verify_machine
from nvlane.cli.service.world import World
from nvlane.model.errors import HostError, NotRestored, WireError
from nvlane.plan.domain_step import StartDomain
from nvlane.spec.document import Spec


def bring_up_domain(
    world: World, file: SpecFile, tell: Tell, *, ask: Ask, check_guest: bool, deadline: float
) -> CameUp | None:
    """Give the domain all lanes of the spec, start it if it does not run, and verify; None when the answer was no.

    Raises Refused before anything is changed, and the error of a step after what was done is undone.
    """
    clock = Clock()
    wanted = file.spec()
    sight = see(wanted.machine.connect, wanted.machine.name)
    if world.store.has(sight.run):
        remedy = f"nvlane status {sight.run} shows it; nvlane attach adds a lane, nvlane down takes all away"
        raise HostError(f"the domain {sight.place.name} has lanes of nvlane already", remedy=remedy)
    clock.lap("facts")
    spec = _named(wanted, sight)
    where = Where(live=bool(sight.running), config=bool(sight.definition))
    record = dataclasses.replace(new_record(world, sight), source=file.path, directory=file.directory)
    given = _decide_all(world, sight, spec, where, record)
    clock.lap("plan")
    if not ask(offer(sight, given)):
        return None
    clock.lap("asked")
    with domain_journal(world, sight.run, file.text) as journal:
        try:
            for index in range(len(spec.lanes)):
                if index:
                    # libvirt has its own words for what it was given: the next lane goes into those.
                    sight = see(sight.place.uri, sight.place.uuid)
                lane = decide(world, sight, spec, index, where, record) if index else given[0]
                record = give_lane(world, journal, sight, lane, record, tell)
            record = _start(world, journal, sight, record, tell)
        except BaseException as error:
            _undo_all(world, journal, tell, error)
            raise
        record = dataclasses.replace(record, complete=True)
        keep(journal, record)
        clock.lap("apply")
        if check_guest:
            try:
                record = verify_machine(journal, record, tell, clock=clock, write=True, deadline=deadline)
            except WireError as error:
                message = f"{record.name} is up, but could not be verified: {error.message}"
                raise WireError(message, remedy=error.remedy) from error
    return CameUp(record=record, seconds=clock.seconds)


def _named(spec: Spec, sight: DomainSight) -> Spec:
    """Every lane with its name written out, in the machine that the domain is."""
    lanes = tuple(dataclasses.replace(lane, name=spec.lane_name(index)) for index, lane in enumerate(spec.lanes))
    return Spec(machine=sight.machine(spec.machine), lanes=lanes, source=spec.source)


def _decide_all(world: World, sight: DomainSight, spec: Spec, where: Where, record: MachineRecord) -> tuple[Given, ...]:
    """Each lane on top of those before it, for the one diff of all."""
    given: list[Given] = []
    for index in range(len(spec.lanes)):
        lane = decide(world, sight, spec, index, where, record, beside=given)
        given.append(lane)
        if lane.edited is not None:
            sight = dataclasses.replace(sight, definition=lane.edited.xml)
    return tuple(given)


def _start(world: World, journal: Journal, sight: DomainSight, record: MachineRecord, tell: Tell) -> MachineRecord:
    if sight.running:
        return record
    place = sight.place
    numbers = apply(
        [StartDomain(uri=place.uri, uuid=place.uuid, name=place.name)],
        host=world.host,
        journal=journal,
        operations=world.operations,
        progress=tell,
        lock=world.store.host_lock,
    )
    return dataclasses.replace(record, shared=(*record.shared, *numbers))


def _undo_all(world: World, journal: Journal, tell: Tell, error: BaseException) -> None:
    report = undo(journal, host=world.host, operations=world.operations, progress=tell, lock=world.store.host_lock)
    if report.failed:
        raise NotRestored(f"{error}\n{report.text()}", remedy="nvlane restore tries again") from error
