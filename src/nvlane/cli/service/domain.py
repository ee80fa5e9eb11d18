"""`attach`, `detach` and `up` on libvirt domains: shown as a diff, done on a yes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from nvlane.apply.executor import apply
from nvlane.apply.journal import Journal
from nvlane.apply.undo import plan_undo
from nvlane.cli.service.bound import settle
from nvlane.cli.service.clock import Clock
from nvlane.cli.service.domain_reach import unreachable
from nvlane.cli.service.domain_sight import DomainSight, see
from nvlane.cli.service.record import DomainPlace, LaneRecord, MachineRecord, keep, spec_now
from nvlane.cli.service.refused import PlanRefused, raise_if_refused
from nvlane.cli.service.runs import RunState, look_at
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.up import SpecFile
from nvlane.cli.service.verify import verify_machine
from nvlane.cli.service.world import World, read_for
from nvlane.lanes.domain import DomainPlan, make_domain_plan
from nvlane.libvirt.diff import unified
from nvlane.libvirt.edit import give
from nvlane.libvirt.live import live
from nvlane.libvirt.obstacles import obstacles
from nvlane.libvirt.record import Edited, Record
from nvlane.model.claim import (
    BlockClaim,
    BoundClaim,
    Claim,
    ContentClaim,
    ControllerClaim,
    LinkClaim,
    MemoryDeviceClaim,
    PmemClaim,
    WriteClaim,
)
from nvlane.model.codec import decode, encode
from nvlane.model.device import BlockNode, Device, Frontend, Object
from nvlane.model.errors import HostError, SpecError
from nvlane.plan.domain_step import DefineDomain, DomainFragment, DomainPart, DomainThread, OwnPath, PlugDomain
from nvlane.plan.plan import Plan, Refusal
from nvlane.plan.step import Step
from nvlane.qemu.hotplug import hot_plug
from nvlane.spec.document import Spec
from nvlane.spec.reader import parse_lane
from nvlane.spec.validate import check as check_spec
from nvlane.targets.table import ENGINES


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a person says yes or no to: the diff of the definition ('' for none), and what is plugged into the running
    domain, as libvirt's XML or as QMP."""

    name: str
    diff: str
    plugs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of what a yes is said to: SHA-256, in hex."""
        return hashlib.sha256(json.dumps([self.diff, self.plugs]).encode()).hexdigest()


#: Shows an offer and asks; False for a no. Nothing has been changed then.
Ask = Callable[[Offer], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Where a lane goes: into the running domain, into its definition, or both."""

    live: bool
    config: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One lane, decided."""

    name: str
    kind: str
    todo: DomainPlan
    edited: Edited | None
    plugs: tuple[DomainPart, ...]
    names: Mapping[str, str]
    notes: tuple[str, ...]
    own: tuple[OwnPath, ...]
    text: str = ""
    directory: str = ""


#: Refusals of what a machine had to be started with.
_STARTED_WITHOUT = ("nvdimm-hotplug", "pmem-hotplug")


def attach(
    world: World,
    uri: str,
    name: str,
    file: SpecFile,
    tell: Tell,
    *,
    live: bool,
    config: bool,
    ask: Ask,
    check_guest: bool,
    deadline: float,
) -> tuple[MachineRecord, LaneRecord] | None:
    """Give a domain the lane of a file; None when the answer was no. Raises before anything is changed, and the error
    of a step after what was done is undone."""
    sight = see(uri, name)
    where = _where(sight, live=live, config=config)
    text, record = _record_of(world, sight)
    number = len(record.lanes)
    table = parse_lane(file.text, file.path, file.directory)
    lane_name = table.name or f"{table.KIND}{number}"
    now = spec_now(text, record)
    lanes = (*now.lanes, dataclasses.replace(table, name=lane_name))
    spec = Spec(machine=sight.machine(now.machine), lanes=lanes, source=file.path)
    for problem in check_spec(spec):
        raise SpecError(problem.message, place=problem.place, source=file.path, remedy=problem.remedy)
    given = decide(world, sight, spec, len(lanes) - 1, where, record)
    given = dataclasses.replace(given, text=file.text, directory=file.directory)
    if not ask(offer(sight, (given,))):
        return None
    with domain_journal(world, sight.run, text) as journal:
        record = give_lane(world, journal, sight, given, record, tell)
        record = dataclasses.replace(record, complete=True)
        keep(journal, record)
        lane = record.lanes[-1]
        if check_guest and where.live:
            record = verify_machine(journal, record, tell, clock=Clock(), write=True, deadline=deadline, lanes=(lane,))
    return record, lane


def _where(sight: DomainSight, *, live: bool, config: bool) -> Where:
    """As virsh has it: --live is the domain that runs, --config its next start; neither is all that there is."""
    name = sight.place.name
    if live and not sight.running:
        raise HostError(f"the domain {name} does not run", remedy=f"leave --live out, or virsh start {name}")
    if config and not sight.definition:
        raise HostError(f"the domain {name} is transient: it has no definition", remedy="leave --config out")
    if live or config:
        return Where(live=live, config=config)
    return Where(live=bool(sight.running), config=bool(sight.definition))


def _record_of(world: World, sight: DomainSight) -> tuple[str, MachineRecord]:
    """The text of the run's spec and the record of what the domain has of nvlane; a new one where it has nothing."""
    if not world.store.has(sight.run):
        text = f'[machine]\nname = "{sight.run}"\nconnect = "{sight.place.uri}"\n'
        return text, new_record(world, sight)
    seen = look_at(world, sight.run)
    if seen.record is None or seen.run.begin is None or seen.state not in (RunState.UP, RunState.SHUT_OFF):
        remedy = f"nvlane status {sight.run} shows it; nvlane restore {sight.run} puts it back"
        raise HostError(f"{sight.run} is {seen.state}: {seen.why}", remedy=remedy)
    if seen.record.domain is None or seen.record.domain.uuid != sight.place.uuid:
        whose = "a machine of nvlane's own" if seen.record.domain is None else f"another domain ({seen.record.source})"
        raise HostError(f"nvlane has a run '{sight.run}' already, of {whose}", remedy=f"nvlane down {sight.run} first")
    return seen.run.begin.spec, dataclasses.replace(seen.record, machine=sight.device(str(world.store.runtime)))


def new_record(world: World, sight: DomainSight) -> MachineRecord:
    """A domain that has nothing of nvlane yet."""
    return MachineRecord(
        name=sight.run,
        machine=sight.device(str(world.store.runtime)),
        binary=sight.now.emulator,
        source=sight.place.uri,
        directory="/",
        domain=sight.place,
    )


def decide(
    world: World,
    sight: DomainSight,
    spec: Spec,
    index: int,
    where: Where,
    record: MachineRecord,
    *,
    beside: Sequence[Given] = (),
) -> Given:
    """One lane as it is going to be given, after those `beside` it that were decided before. Raises Refused."""
    facts = read_for(world, spec, boots=False)
    device = sight.device(facts.runtime_dir)
    todo = make_domain_plan(spec, index, facts, ENGINES, running=device if where.live else None, owner=sight.owner)
    raise_if_refused(_for_domains(todo.plan), sight.run, spec.lane_name)
    lane, devices = spec.lane_name(index), todo.plan.devices
    closed = unreachable(world.host, [*_files(devices), *_sockets(todo.plan.steps)], sight.owner)
    if closed:
        raise PlanRefused(sight.run, closed, spec.lane_name)
    capable = dataclasses.replace(sight.capabilities, devices=frozenset(facts.qemu.devices if facts.qemu else ()))
    ahead = obstacles(sight.running or sight.definition, devices, todo.needs, capable, security=sight.security)
    stops = [o for o in ahead if o.stops]
    if stops:
        refusals = [Refusal(code=o.code, lane=index, reason=o.text, remedy=o.remedy) for o in stops]
        raise PlanRefused(sight.run, refusals, spec.lane_name)
    edited = None
    if where.config:
        edited = give(sight.definition, devices, todo.needs, capable, lane=lane, standing=_standing(record, beside))
    plugs: tuple[DomainPart, ...] = ()
    names: Mapping[str, str] = edited.names if edited is not None else {}
    if where.live:
        now = live(sight.running, devices, capable, todo.needs, busy=sight.busy)
        names = now.names
        threads = (DomainThread(number=number) for number in now.threads)
        placed = tuple(_placed(device, now.buses) for device in now.devices)
        plugs = (*placed, *threads, *(DomainFragment(xml=part.xml, alias=part.alias) for part in now.fragments))
    return Given(
        name=lane,
        kind=str(spec.lanes[index].KIND),
        todo=todo,
        edited=edited,
        plugs=plugs,
        names=names,
        notes=tuple(f"{o.text}; {o.remedy}" for o in ahead),
        own=tuple(OwnPath(path=p, uid=sight.owner[0], gid=sight.owner[1]) for p in _files(devices))
        if sight.owner
        else (),
    )


def _for_domains(plan: Plan) -> Plan:
    """Refusals with the remedy that a domain has, which needs no spec."""
    remedy = "attach it with --config, which makes room, and start the domain anew"
    refusals = (
        dataclasses.replace(refusal, remedy=remedy) if refusal.code in _STARTED_WITHOUT else refusal
        for refusal in plan.refusals
    )
    return dataclasses.replace(plan, refusals=tuple(refusals))


def _placed(device: Device, buses: Mapping[str, str]) -> Device:
    """A device for the monitor with its bus written out."""
    if not isinstance(device, Frontend) or device.id not in buses:
        return device
    return dataclasses.replace(device, slot=False, properties={**device.properties, "bus": buses[device.id]})


def _standing(record: MachineRecord, beside: Sequence[Given]) -> tuple[Record, ...]:
    """What the definition has of other lanes."""
    kept = tuple(decode(Record, lane.additions) for lane in record.present if lane.additions is not None)
    return (*kept, *(lane.edited.record for lane in beside if lane.edited is not None))


def _files(devices: Sequence[Device]) -> tuple[str, ...]:
    """The files and block devices on the host that QEMU opens by their names."""
    named: list[object] = [
        name for device in devices if isinstance(device, BlockNode) for name in _named(device.options)
    ]
    named += [device.properties.get("mem-path") for device in devices if isinstance(device, Object)]
    return tuple(dict.fromkeys(path for path in named if isinstance(path, str) and path.startswith("/")))


def _named(options: Mapping[str, object]) -> Iterator[object]:
    """The file of a block node, or of the node below it that its options hold."""
    yield options.get("filename")
    if isinstance(below := options.get("file"), Mapping):
        yield from _named(below)


def _sockets(steps: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.path for step in steps if isinstance(step, OwnPath))


def offer(sight: DomainSight, given: Sequence[Given]) -> Offer:
    last = next((lane.edited for lane in reversed(given) if lane.edited is not None), None)
    notes = [note.text for lane in given for note in lane.todo.plan.notes]
    for lane in given:
        notes += lane.notes
        for notice in lane.edited.notes if lane.edited else ():
            notes.append(f"{notice.text}; {notice.remedy}" if notice.remedy else notice.text)
    return Offer(
        name=sight.place.name,
        diff=unified(sight.definition, last.xml) if last else "",
        plugs=tuple(_words(part) for lane in given for part in lane.plugs),
        notes=tuple(dict.fromkeys(notes)),
    )


def _words(part: DomainPart) -> str:
    if isinstance(part, DomainFragment):
        return part.xml
    if isinstance(part, DomainThread):
        return f"<iothread id='{part.number}'/>"
    command = hot_plug(part)
    return f"QMP {json.dumps({'execute': command.execute, 'arguments': command.arguments})}"


@contextlib.contextmanager
def domain_journal(world: World, run: str, text: str) -> Iterator[Journal]:
    """The run of a domain, begun where there is none. One that has nothing to undo is forgotten."""
    with contextlib.ExitStack() as at_end:
        if world.store.has(run):
            journal = at_end.enter_context(world.store.open(run))
        else:
            journal = at_end.enter_context(world.store.create(run, world.host, spec=text))
        at_end.callback(forget_empty, world, journal)
        yield journal


def forget_empty(world: World, journal: Journal) -> None:
    if not plan_undo(journal, world.operations):
        world.store.remove(journal)


def give_lane(
    world: World, journal: Journal, sight: DomainSight, given: Given, record: MachineRecord, tell: Tell
) -> MachineRecord:
    """Everything of one lane, and its record."""

    def perform(steps: Sequence[Step]) -> tuple[int, ...]:
        return apply(
            steps,
            host=world.host,
            journal=journal,
            operations=world.operations,
            progress=tell,
            lock=world.store.host_lock,
        )

    if given.todo.shared and not record.shared:
        keep(journal, record)
        record = dataclasses.replace(record, shared=perform(given.todo.shared))
    keep(journal, record)
    numbers = perform((*given.todo.plan.steps, *given.own, *_domain_steps(sight.place, given)))
    claims = settle(given.todo.plan.claims, journal.entries())
    lane = LaneRecord(
        number=len(record.lanes),
        name=given.name,
        kind=given.kind,
        devices=given.todo.plan.devices,
        claims=tuple(_claim(claim, len(record.lanes), given.names) for claim in claims),
        steps=numbers,
        text=given.text,
        directory=given.directory,
        parts=_parts(given),
        additions=encode(given.edited.record) if given.edited else None,
    )
    record = dataclasses.replace(record, lanes=(*record.lanes, lane))
    keep(journal, record)
    return record


def _domain_steps(place: DomainPlace, given: Given) -> Iterator[Step]:
    """The running domain first: what it refuses is not in its definition either."""
    if given.plugs:
        yield PlugDomain(uri=place.uri, uuid=place.uuid, name=place.name, lane=given.name, parts=given.plugs)
    if given.edited is not None:
        yield DefineDomain(
            uri=place.uri,
            uuid=place.uuid,
            name=place.name,
            lane=given.name,
            before=given.edited.record.before,
            after=given.edited.xml,
            additions=encode(given.edited.record),
        )


def _parts(given: Given) -> tuple[DomainPart, ...]:
    """What a running domain is asked to let go, whether it was plugged in or was there from the start."""
    if given.plugs:
        return given.plugs
    assert given.edited is not None
    fragments = (DomainFragment(xml="", alias=given.edited.names[name]) for name in given.edited.first_class)
    return (*given.todo.plan.devices, *fragments)


def _claim(claim: Claim, number: int, names: Mapping[str, str]) -> Claim:
    """A claim of a lane with the ids that its devices have in libvirt's QEMU."""
    match claim:
        case LinkClaim():
            owner = claim.chardev_id.removesuffix("-link")
            # libvirt src/qemu/qemu_alias.c names the socket of a vhost-user disk after its alias.
            link = f"chr-vu-{names[owner]}" if names.get(owner, owner) != owner else claim.chardev_id
            return dataclasses.replace(claim, lane=number, chardev_id=link)
        case ControllerClaim() | MemoryDeviceClaim() | PmemClaim():
            return dataclasses.replace(claim, lane=number, device_id=names.get(claim.device_id, claim.device_id))
        case BlockClaim() | ContentClaim() | WriteClaim() | BoundClaim():
            device = names.get(claim.locator.device_id, claim.locator.device_id)
            locator = dataclasses.replace(claim.locator, device_id=device)
            return dataclasses.replace(claim, lane=number, locator=locator)
        case _ as never:
            assert_never(never)
