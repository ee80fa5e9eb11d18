"""A target without a machine of nvlane's: for libvirt's and other people's QEMU, for benchmarks, for scripts of SPDK's.

Everything about its source is the vhost-user lane's own business; here stands only what a machine would have said.
"""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.facts.shape import Facts
from nvlane.lanes.compose import contexts_of
from nvlane.lanes.context import Context
from nvlane.lanes.vhost_user import core_refusals, export, source_refusals, source_steps
from nvlane.plan import refuse
from nvlane.plan.engine import Engines
from nvlane.plan.plan import Plan
from nvlane.plan.step import MakeDirectory, StartTarget, Step
from nvlane.spec.document import Spec
from nvlane.spec.lane import VhostUser
from nvlane.spec.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTarget:
    """What `nvlane target start` was asked for. Without a `source` the target serves nothing until it is told to;
    `config` is a file of JSON-RPC calls, as SPDK's save_config writes it; `opens` are files and directories of which it
    may be told later."""

    name: str
    source: VhostUser | None = None
    cores: frozenset[int] = frozenset()
    config: str = ""
    opens: tuple[str, ...] = ()
    sandbox: bool = True


def spec_of(wanted: WantedTarget, facts: Facts | None = None) -> Spec:
    """The spec of a machine with that one lane, for everything that reads a spec. Which guests will come is not known:
    all memory of the host is what they may have, and a target with a drive may lock it."""
    memory = facts.memory_total if facts else 0
    lanes = (wanted.source or VhostUser(),)
    return Spec(machine=Machine(name=wanted.name, memory=memory, sandbox=wanted.sandbox), lanes=lanes)


def make_target_plan(wanted: WantedTarget, facts: Facts, engines: Engines) -> Plan:
    """Everything that starting this target would do, or why not."""
    (at,) = contexts_of(spec_of(wanted, facts), facts, engines)
    source = wanted.source
    # An empty target is asked what any engine is: whether its program is there.
    refusals = source_refusals(source or VhostUser(null=1), at)
    refusals += core_refusals(wanted.cores, at)
    if refusals:
        return Plan(machine=None, refusals=tuple(refusals))
    return Plan(machine=None, steps=_steps(wanted, at))


def _steps(wanted: WantedTarget, at: Context) -> tuple[Step, ...]:
    source = wanted.source
    directory = f"{at.facts.runtime_dir}/{wanted.name}"
    engine = source.engine if source else VhostUser().engine
    return (
        MakeDirectory(path=at.facts.runtime_dir, mode=0o755),
        *(source_steps(source, at) if source else ()),
        MakeDirectory(path=directory),
        StartTarget(
            engine=engine,
            name=wanted.name,
            binary=at.engines[engine].binary(at.facts),
            directory=directory,
            export=export(source, at, f"{directory}/vhost.sock") if source else None,
            config=wanted.config,
            opens=(*((source.file,) if source and source.file else ()), *wanted.opens),
            memlock=_memlock(source, at),
            cpus=wanted.cores or at.cpus,
            cores=wanted.cores,
            sandbox=wanted.sandbox,
        ),
    )


def _memlock(source: VhostUser | None, at: Context) -> int | None:
    """Drives may still be attached to an empty target: it gets the limit where it can be had without asking."""
    if source is not None and not source.drive:
        return None
    if source is None and refuse.memlock(at.index, at.facts, at.memory) is not None:
        return None
    return at.memory
