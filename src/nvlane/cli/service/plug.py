"""`attach` and `detach`: one lane into, and out of, a machine that runs."""

from __future__ import annotations

import dataclasses

from nvlane.apply.executor import apply
from nvlane.apply.journal import Journal
from nvlane.apply.operations.plug import PLUG_DEADLINE
from nvlane.apply.undo import UndoReport, undo
from nvlane.cli.service.bound import settle
from nvlane.cli.service.clock import Clock
from nvlane.cli.service.proofs import read_early, without_early
from nvlane.cli.service.record import LaneRecord, MachineRecord, keep, spec_now
from nvlane.cli.service.refused import raise_if_refused
from nvlane.cli.service.runs import Seen, must_be_up
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.up import SpecFile
from nvlane.cli.service.verify import verify_machine
from nvlane.cli.service.world import World, read_for
from nvlane.lanes.compose import make_attach_plan
from nvlane.model.claim import Evidence
from nvlane.model.errors import Bug, HostError, SpecError, WireError
from nvlane.plan.step import PlugDevices, UnplugDevices
from nvlane.spec.document import Spec
from nvlane.spec.lane import LaneKind
from nvlane.spec.reader import parse_lane
from nvlane.spec.validate import check as check_spec
from nvlane.targets.table import ENGINES


def attach(
    world: World, name: str, file: SpecFile, tell: Tell, *, check_guest: bool, deadline: float
) -> tuple[MachineRecord, LaneRecord]:
    """Plug the lane of a file in. Raises Refused before anything is changed; a step that fails is undone."""
    text, record = _up(must_be_up(world, name))
    number = len(record.lanes)
    table = parse_lane(file.text, file.path, file.directory)
    lane_name = table.name or f"{table.KIND}{number}"
    now = spec_now(text, record)
    spec = Spec(machine=now.machine, lanes=(*now.lanes, dataclasses.replace(table, name=lane_name)), source=file.path)
    for problem in check_spec(spec):
        raise SpecError(problem.message, place=problem.place, source=file.path, remedy=problem.remedy)
    plan = make_attach_plan(spec, len(spec.lanes) - 1, read_for(world, spec), ENGINES, record.machine)
    raise_if_refused(plan, name, spec.lane_name)
    tell.notes(plan)
    with world.store.open(name) as journal:
        numbers = apply(
            plan.steps,
            host=world.host,
            journal=journal,
            operations=world.operations,
            progress=tell,
            lock=world.store.host_lock,
        )
        lane = LaneRecord(
            number=number,
            name=lane_name,
            kind=str(table.KIND),
            devices=plan.devices,
            claims=tuple(dataclasses.replace(claim, lane=number) for claim in settle(plan.claims, journal.entries())),
            steps=numbers,
            text=file.text,
            directory=file.directory,
        )
        record = dataclasses.replace(record, lanes=(*record.lanes, lane))
        keep(journal, record)
        if check_guest:
            record = verify_machine(journal, record, tell, clock=Clock(), write=True, deadline=deadline, lanes=(lane,))
    return record, lane


def detach(world: World, name: str, lane_name: str, tell: Tell) -> tuple[MachineRecord, tuple[Evidence, ...]]:
    """Unplug a lane and undo what was done for it alone. The evidence is that of proofs which cannot be read any more
    after it. Raises the error of the guest or of QEMU that does not let a
    device go, and NotRestored when something of the host could not be put back."""
    seen = must_be_up(world, name)
    _, record = _up(seen)
    lane = record.lane(lane_name)
    for disk in (one for one in record.work if one.disk.partition(":")[0] == lane_name):
        raise HostError(f"{lane_name} is being copied", remedy=f"nvlane jobs {name} --cancel {disk.id}")
    with world.store.open(name) as journal:
        tell.phase(f"asking the guest to let {lane_name} go")
        try:
            _unplug(world, record, lane, journal, tell)
        except (HostError, WireError) as error:
            raise _with_remedy(error, lane, name) from error
        proofs = read_early(world, record, tell, lane=lane.number)
        # Nothing of the host is touched before QEMU has let the devices go.
        _undo(world, journal, lane.steps, tell).raise_for_failed()
        gone = dataclasses.replace(lane, detached=True)
        record = dataclasses.replace(
            without_early(record, lane.number),
            lanes=tuple(gone if other.number == lane.number else other for other in record.lanes),
            evidence=tuple(piece for piece in record.evidence if piece.lane != lane.number),
        )
        keep(journal, record)
    return record, proofs


def _up(seen: Seen) -> tuple[str, MachineRecord]:
    if seen.record is None or seen.run.begin is None:
        raise Bug(f"{seen.run.name} is up without a record")
    return seen.run.begin.spec, seen.record


def _unplug(world: World, record: MachineRecord, lane: LaneRecord, journal: Journal, tell: Tell) -> None:
    plugged = (
        next((entry.step for entry in journal.entries() if entry.n == lane.steps[-1]), None) if lane.text else None
    )
    if not isinstance(plugged, PlugDevices) or (plugged.devices, plugged.qmp) != (lane.devices, record.qmp):
        # The machine was started with it, or it or its disk has moved since: no step plugged in what is there now.
        inverse = UnplugDevices(machine=record.name, qmp=record.qmp, devices=lane.devices)
        world.plugger.unplug(inverse, PLUG_DEADLINE)
    if not lane.text:
        return
    for step in _undo(world, journal, lane.steps[-1:], tell).failed:
        raise HostError(step.outcome.why, remedy=step.outcome.remedy)


def _with_remedy(error: HostError | WireError, lane: LaneRecord, name: str) -> HostError | WireError:
    """QEMU lets no NVDIMM and no virtio-pmem go (hw/i386/pc.c, hw/virtio/virtio-md-pci.c), in words of its own."""
    if lane.kind != LaneKind.NVDIMM:
        return error
    return HostError(
        f"{lane.name}: persistent memory stays in a machine while that runs: {error.message}",
        remedy=f"take the lane out of the spec; nvlane down {name}; nvlane up",
    )


def _undo(world: World, journal: Journal, steps: tuple[int, ...], tell: Tell) -> UndoReport:
    return undo(
        journal,
        host=world.host,
        operations=world.operations,
        progress=tell,
        only=steps,
        lock=world.store.host_lock,
    )
