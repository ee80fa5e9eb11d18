"""Lanes out of libvirt domains again: `detach` one, `down` and `restore` all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from nvlane.apply.journal import Entry, Journal
from nvlane.apply.undo import UndoReport, undo
from nvlane.cli.service.domain import Ask, Offer, forget_empty
from nvlane.cli.service.proofs import read_early, without_early
from nvlane.cli.service.record import DomainPlace, LaneRecord, MachineRecord, keep
from nvlane.cli.service.runs import RunState, Seen, cut_short, look_at
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.libvirt.diff import unified
from nvlane.model.claim import Evidence
from nvlane.model.errors import HostError, NvlaneError
from nvlane.plan.domain_step import DefineDomain, PlugDomain, StartDomain, UnplugDomain
from nvlane.wire.libvirt import Libvirt
from nvlane.wire.pause import pause

_AGAIN = 0.2


def detach(
    world: World, name: str, lane_name: str, tell: Tell, ask: Ask
) -> tuple[MachineRecord, tuple[Evidence, ...]] | None:
    """Take a lane out of a domain: out of its run, where it runs, then out of its definition, then of the host. None
    when the answer was no. The evidence is that of proofs which cannot be read any more after it."""
    seen = look_at(world, name)
    if seen.state not in (RunState.UP, RunState.SHUT_OFF) or seen.record is None or seen.record.domain is None:
        raise HostError(f"{name} is {seen.state}: {seen.why}", remedy=f"nvlane restore {name} puts back what it has")
    record, place = seen.record, seen.record.domain
    lane = record.lane(lane_name)
    with world.store.open(name) as journal:
        if not ask(Offer(name=place.name, diff=_preview(world, journal, place, lane))):
            return None
        _unplug(world, journal, place, lane, tell)
        proofs = read_early(world, record, tell, lane=lane.number)
        _undo(world, journal, tell, lane.steps).raise_for_failed()
        gone = dataclasses.replace(lane, detached=True)
        record = dataclasses.replace(
            without_early(record, lane.number),
            lanes=tuple(gone if other.number == lane.number else other for other in record.lanes),
            evidence=tuple(piece for piece in record.evidence if piece.lane != lane.number),
        )
        keep(journal, record)
        if not record.present and not record.proofs:
            _undo(world, journal, tell).raise_for_failed()
            forget_empty(world, journal)
    return record, proofs


def _preview(world: World, journal: Journal, place: DomainPlace, lane: LaneRecord) -> str:
    """The diff of the definition that taking the lane away makes."""
    defines = {
        entry.n: entry for entry in journal.entries() if isinstance(entry.step, DefineDomain) and not entry.undone
    }
    mine = next((defines[n] for n in lane.steps if n in defines), None)
    found = world.operations.domains.look(place.uri, place.uuid)
    if mine is None or not found.xml:
        return ""
    step, settled = mine.step, getattr(mine.result, "settled", "")
    assert isinstance(step, DefineDomain)
    if found.xml in (step.after, settled):
        return unified(found.xml, step.before)
    others = {
        other.step.lane: other.step.additions
        for other in defines.values()
        if isinstance(other.step, DefineDomain) and other.n != mine.n
    }
    return unified(found.xml, world.operations.domains.without(found.xml, step.additions, others)[0])


def _unplug(world: World, journal: Journal, place: DomainPlace, lane: LaneRecord, tell: Tell) -> None:
    """Out of the domain as it runs; nothing else of the lane is touched before its guest has let it go."""
    plugged = [
        entry.n for entry in _outstanding(journal) if entry.n in lane.steps and isinstance(entry.step, PlugDomain)
    ]
    if plugged:
        tell.phase(f"asking the guest to let {lane.name} go")
        for step in _undo(world, journal, tell, plugged).failed:
            raise HostError(step.outcome.why, remedy=step.outcome.remedy)
    # It may have been started with the lane, or anew since: then no step of ours plugged it in.
    inverse = UnplugDomain(uri=place.uri, uuid=place.uuid, name=place.name, lane=lane.name, parts=lane.parts)
    if world.operations.domains.has(inverse).has:
        tell.phase(f"asking the guest to let {lane.name} go")
        try:
            world.operations.domains.unplug(inverse)
        except NvlaneError as error:
            remedy = error.remedy or f"virsh shutdown {place.name}, then do it again"
            raise HostError(f"{place.name} did not let {lane.name} go: {error.message}", remedy=remedy) from error


def take_lanes_away(
    world: World, seen: Seen, tell: Tell, *, shutdown: float
) -> tuple[UndoReport, tuple[Evidence, ...]]:
    """Everything that nvlane gave a domain, and what was done on the host for it. Where nvlane started the domain it
    is shut down first, and ended after `shutdown` seconds; a domain that was there before goes on running. The
    evidence is as with `detach`."""
    record = seen.record
    assert record is not None and record.domain is not None
    place = record.domain
    with world.store.open(record.name) as journal:
        lost = cut_short(world.store.read(record.name), record) if record.complete else ()
        if lost:
            # An attach that was killed: the lanes from before it are as they were.
            report = _undo(world, journal, tell, lost)
            if report.failed or record.present:
                return report, ()
        started = [entry.n for entry in _outstanding(journal) if isinstance(entry.step, StartDomain)]
        if started:
            _shut_down(place, tell, shutdown)
            report = _undo(world, journal, tell, started)
            if report.failed:
                return report, ()
        for lane in reversed(record.present):
            _unplug(world, journal, place, lane, tell)
        proofs = read_early(world, record, tell)
        return _undo(world, journal, tell), proofs


def _shut_down(place: DomainPlace, tell: Tell, deadline: float) -> None:
    """Ask a domain to shut down, and wait."""
    if deadline <= 0:
        return
    try:
        with Libvirt.connect(place.uri) as libvirt:
            domain = libvirt.domain(place.uuid)
            if not domain.is_active:
                return
            tell.phase(f"asking {place.name} to shut down")
            domain.shutdown()
            left = deadline
            while left > 0 and domain.is_active:
                pause(_AGAIN)
                left -= _AGAIN
            if left <= 0:
                tell.phase(f"{place.name} did not shut down within {deadline:g} s; it is ended")
    except NvlaneError as error:
        tell.phase(f"{place.name} could not be asked: {error.message}")


def _outstanding(journal: Journal) -> tuple[Entry, ...]:
    return tuple(entry for entry in journal.entries() if not entry.undone)


def _undo(world: World, journal: Journal, tell: Tell, only: Collection[int] | None = None) -> UndoReport:
    return undo(
        journal,
        host=world.host,
        operations=world.operations,
        progress=tell,
        only=only,
        lock=world.store.host_lock,
    )
