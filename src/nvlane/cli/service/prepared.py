"""`host setup` and `host status`: a run of its own, called `host`, that remembers what was there before."""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.apply.executor import apply
from nvlane.apply.store import HOST_RUN
from nvlane.apply.undo import plan_undo
from nvlane.cli.service.refused import raise_if_refused
from nvlane.cli.service.runs import RunState, look_at
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World, read_host
from nvlane.facts.shape import Facts
from nvlane.model.errors import HostError
from nvlane.plan.plan import Plan
from nvlane.plan.prepare import Wanted, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """The host's pools and drives now, and what `host reset` would undo."""

    facts: Facts
    to_undo: tuple[str, ...] = ()


def set_up(world: World, wanted: Wanted, tell: Tell) -> Plan:
    """Prepare the host, beyond what earlier setups did. Raises Refused, or the error of a step that was undone."""
    seen = look_at(world, HOST_RUN) if world.store.has(HOST_RUN) else None
    if seen is not None and seen.state is not RunState.PREPARED:
        raise HostError(f"the record of `host setup`: {seen.why}", remedy="nvlane restore host, then set up again")
    plan = prepare(wanted, read_host(world, probe_kvm=False))
    raise_if_refused(plan, "the host", str)
    tell.notes(plan)
    if not plan.steps:
        return plan
    store = world.store
    with store.open(HOST_RUN) if seen else store.create(HOST_RUN, world.host) as journal:
        try:
            apply(
                plan.steps,
                host=world.host,
                journal=journal,
                operations=world.operations,
                progress=tell,
                lock=store.host_lock,
            )
        finally:
            if not plan_undo(journal, world.operations):
                store.remove(journal)
    return plan


def host_state(world: World) -> HostState:
    """What stands now."""
    facts = read_host(world, probe_kvm=False)
    outstanding = world.store.read(HOST_RUN).outstanding if world.store.has(HOST_RUN) else ()
    return HostState(facts=facts, to_undo=tuple(entry.step.describe() for entry in reversed(outstanding)))
