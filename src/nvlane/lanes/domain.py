"""A lane for a libvirt domain: its host preparation as ever, and its devices for `libvirt.edit` to write into the XML.

The VM is libvirt's, so nothing here starts it. QEMU runs as another user there: its sockets stand in directories that
anybody may pass through, and are given to that user.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from nvlane.facts.shape import Facts
from nvlane.lanes import pinning
from nvlane.lanes.compose import contexts_of, net_hugepages
from nvlane.lanes.context import Context
from nvlane.lanes.table import LANES
from nvlane.model.device import MachineDevice, MemoryNeeds
from nvlane.plan.domain_step import OwnPath
from nvlane.plan.engine import Engines
from nvlane.plan.plan import Plan
from nvlane.plan.step import MakeDirectory, StartTarget, Step
from nvlane.spec.document import Spec

#: Anybody may pass, nobody but root may look.
PASSABLE = 0o711


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPlan:
    """What one lane takes on the host, and what it wants of the domain's memory. `shared` are steps that go before
    the plan's and that the domain's lanes have in common."""

    plan: Plan
    shared: tuple[Step, ...] = ()
    needs: MemoryNeeds = field(default_factory=MemoryNeeds)


def make_domain_plan(
    spec: Spec,
    index: int,
    facts: Facts,
    engines: Engines,
    *,
    running: MachineDevice | None,
    owner: tuple[int, int] | None,
) -> DomainPlan:
    """The `index`th lane of `spec`. `running` is the domain where the lane is plugged into it while it runs, `owner`
    the user and group of its QEMU where that is another user than ours."""
    contexts = contexts_of(spec, facts, engines)
    at = dataclasses.replace(contexts[index], running=_with_room(running, contexts, index) if running else None)
    table, lane = spec.lanes[index], LANES[spec.lanes[index].KIND]
    refusals = (*lane.refusals(table, at), *pinning.refusals(contexts))
    if refusals:
        return DomainPlan(plan=Plan(machine=None, refusals=tuple(dict.fromkeys(refusals))))
    steps, short = net_hugepages(list(lane.steps(table, at)), facts)
    if short:
        return DomainPlan(plan=Plan(machine=None, refusals=tuple(dict.fromkeys(short))))
    directories = (MakeDirectory(path=facts.runtime_dir, mode=PASSABLE), MakeDirectory(path=at.runtime, mode=PASSABLE))
    has_target = any(isinstance(step, StartTarget) for step in steps)
    plan = Plan(
        machine=running,
        notes=lane.notes(table, at),
        steps=tuple(new for step in steps for new in _for_libvirt(step, owner)),
        devices=lane.devices(table, at),
        claims=lane.claims(table, at),
    )
    return DomainPlan(plan=plan, needs=lane.needs(table, at), shared=directories if has_target else ())


def _with_room(running: MachineDevice, contexts: Sequence[Context], index: int) -> MachineDevice:
    """A lane's refusals add up what all lanes want of a machine; a running domain tells what is free beside those that
    it has."""
    others = [LANES[at.spec.lanes[at.index].KIND].needs(at.spec.lanes[at.index], at) for at in contexts]
    room, mine = running.needs, others.pop(index)
    total = dataclasses.replace(
        room,
        slots=room.slots + sum(other.slots for other in others),
        hotplug=room.hotplug + sum(other.hotplug for other in others),
    )
    return dataclasses.replace(running, needs=total) if mine.hotplug else running


def _for_libvirt(step: Step, owner: tuple[int, int] | None) -> tuple[Step, ...]:
    match step:
        case MakeDirectory():
            return (dataclasses.replace(step, mode=PASSABLE),)
        case StartTarget() if step.export is not None and owner is not None:
            return (step, OwnPath(path=step.export.socket, uid=owner[0], gid=owner[1]))
        case _:
            return (step,)
