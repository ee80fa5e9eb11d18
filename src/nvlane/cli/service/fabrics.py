"""`fabrics`: exports of this host and its connections to others, each a run of its own: journaled, and undone by
`unexport` or `disconnect`, `down` or `restore`."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nvlane.apply.executor import apply
from nvlane.apply.operations.fabric import discover
from nvlane.apply.store import HOST_RUN
from nvlane.apply.undo import plan_undo, undo
from nvlane.cli.service.refused import raise_if_refused
from nvlane.cli.service.runs import FABRICS_NOTE
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World, read_host, read_paths_of
from nvlane.facts.drives import read_namespace
from nvlane.facts.fabrics import read_connections, read_fabrics
from nvlane.facts.shape import FabricConnection, Fabrics, Facts, Namespace
from nvlane.lanes.connection import WantedConnection, connection_refusals, connection_steps
from nvlane.model.errors import HostError
from nvlane.model.fabrics import HOST_MODULES, FabricPath, host_id_of
from nvlane.plan.export import WantedExport, default_nqn, make_export_plan, sources
from nvlane.plan.plan import Plan
from nvlane.plan.step import LoadModule

#: Seconds from a connection to its namespaces: the kernel scans them in the background.
_SCAN_DEADLINE: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricsState:
    """What this host exports and is connected to, and which runs did it (NQN -> names)."""

    seen: Fabrics
    exports: Mapping[str, tuple[str, ...]]
    connections: Mapping[str, tuple[str, ...]]
    namespaces: Mapping[str, Namespace]


def plan_export(world: World, wanted: WantedExport) -> tuple[WantedExport, Facts, Plan]:
    """The wanted export with its NQN written out, and what it would do."""
    facts = read_paths_of(world, wanted.files)
    if not wanted.nqn:
        wanted = dataclasses.replace(wanted, nqn=default_nqn(facts.hostname, wanted.name))
    return wanted, facts, make_export_plan(wanted, facts)


def export(world: World, wanted: WantedExport, tell: Tell) -> dict[str, Any]:
    """Export, and tell what a Host has to know. Raises Refused, or the error of a step after it is undone."""
    wanted, facts, plan = plan_export(world, wanted)
    raise_if_refused(plan, wanted.name, lambda _: "")
    told = {
        "name": wanted.name,
        "nqn": wanted.nqn,
        "paths": [_path_json(path) for path in wanted.paths],
        "namespaces": [{"nsid": nsid, "source": source} for nsid, source in enumerate(sources(wanted, facts), start=1)],
    }
    _run(world, wanted.name, plan, tell, {"kind": "export", "nqn": wanted.nqn})
    return told


def plan_connect(world: World, wanted: WantedConnection) -> Plan:
    facts = read_host(world, probe_kvm=False)
    refusals = connection_refusals(wanted, facts, None)
    return Plan(machine=None, refusals=refusals, steps=() if refusals else connection_steps(wanted, facts))


def connect(world: World, name: str, wanted: WantedConnection, tell: Tell) -> dict[str, Any]:
    """Connect by every path, and tell what came."""
    plan = plan_connect(world, wanted)
    raise_if_refused(plan, name, lambda _: "")
    _run(world, name, plan, tell, {"kind": "connection", "nqn": wanted.nqn})

    def came() -> bool:
        return any(seen.namespaces for seen in connections_of(world, wanted.nqn))

    world.host.wait_until(came, deadline=_SCAN_DEADLINE)
    seen = connections_of(world, wanted.nqn)
    names = sorted({name for one in seen for name in one.namespaces})
    return {
        "name": name,
        "nqn": wanted.nqn,
        "connections": [_connection_json(one) for one in seen],
        "namespaces": [_namespace_json(read_namespace(world.host, name)) for name in names],
    }


def connections_of(world: World, nqn: str) -> tuple[FabricConnection, ...]:
    return tuple(seen for seen in read_connections(world.host) if seen.nqn == nqn)


def _run(world: World, name: str, plan: Plan, tell: Tell, note: Mapping[str, Any]) -> None:
    if name == HOST_RUN:
        raise HostError(f"'{HOST_RUN}' is the record of nvlane host", remedy="take another name")
    tell.notes(plan)
    with world.store.create(name, world.host) as journal:
        try:
            journal.note(FABRICS_NOTE, {**note, "complete": False})
            apply(
                plan.steps,
                host=world.host,
                journal=journal,
                operations=world.operations,
                progress=tell,
                lock=world.store.host_lock,
            )
            journal.note(FABRICS_NOTE, {**note, "complete": True})
        except BaseException:
            if not plan_undo(journal, world.operations):
                world.store.remove(journal)
            raise


def discovered(world: World, path: FabricPath, host_nqn: str, tell: Tell) -> list[dict[str, str]]:
    """What a Target offers to this host. The module that it takes to ask is loaded, and unloaded again."""
    seen = read_fabrics(world.host)
    host_nqn = host_nqn or seen.host_nqn
    if not host_nqn:
        raise HostError("this host has no NQN", remedy="nvme gen-hostnqn > /etc/nvme/hostnqn, or say --host-nqn")
    host_id = seen.host_id if host_nqn == seen.host_nqn and seen.host_id else host_id_of(host_nqn)
    lock = world.store.host_lock
    with world.store.create(f"discover-{os.getpid()}", world.host) as journal:
        try:
            load = LoadModule(name=HOST_MODULES[path.transport])
            apply([load], host=world.host, journal=journal, operations=world.operations, lock=lock)
            tell.phase(f"asking {path}")
            return discover(world.host, path, host_nqn, host_id)
        finally:
            undo(journal, host=world.host, operations=world.operations, lock=lock)
            if not plan_undo(journal, world.operations):
                world.store.remove(journal)


def named(world: World, name: str, kind: str) -> str:
    """The name of an export or connection that there is. Raises HostError."""
    runs = _runs(world)
    if name in runs and runs[name]["kind"] == kind:
        return name
    names = [other for other, note in runs.items() if note["kind"] == kind]
    raise HostError(
        f"there is no {kind} '{name}'", remedy=f"there are: {', '.join(names)}" if names else f"there is no {kind}"
    )


def _runs(world: World) -> dict[str, dict[str, Any]]:
    notes = {run.name: (run.notes or {}).get(FABRICS_NOTE) for run in world.store.runs() if not run.error}
    return {name: note for name, note in notes.items() if note is not None}


def state(world: World) -> FabricsState:
    """What stands now."""
    seen = read_fabrics(world.host)
    by: dict[str, dict[str, list[str]]] = {"export": {}, "connection": {}}
    for name, note in _runs(world).items():
        by[note["kind"]].setdefault(note["nqn"], []).append(name)
    names = sorted({name for one in seen.connections for name in one.namespaces})
    return FabricsState(
        seen=seen,
        exports={nqn: tuple(runs) for nqn, runs in by["export"].items()},
        connections={nqn: tuple(runs) for nqn, runs in by["connection"].items()},
        namespaces={name: read_namespace(world.host, name) for name in names},
    )


def state_json(state: FabricsState) -> dict[str, Any]:
    return {
        "exports": [
            {
                "nqn": subsystem.nqn,
                "runs": list(state.exports.get(subsystem.nqn, ())),
                "any_host": subsystem.any_host,
                "hosts": list(subsystem.hosts),
                "paths": [
                    {"transport": port.transport, "address": port.address, "service": port.service}
                    for port in state.seen.ports
                    if subsystem.nqn in port.subsystems
                ],
                "namespaces": [
                    {"nsid": ns.nsid, "source": ns.path, "enabled": ns.enabled} for ns in subsystem.namespaces
                ],
            }
            for subsystem in state.seen.subsystems
        ],
        "connections": [
            {
                **_connection_json(one),
                "nqn": one.nqn,
                "runs": list(state.connections.get(one.nqn, ())),
                "namespaces": [_namespace_json(state.namespaces[name]) for name in one.namespaces],
            }
            for one in state.seen.connections
        ],
    }


def _path_json(path: FabricPath) -> dict[str, str]:
    return {"transport": str(path.transport), "address": path.address, "service": path.service}


def _connection_json(seen: FabricConnection) -> dict[str, str]:
    return {
        "controller": seen.controller,
        "transport": seen.transport,
        "address": seen.address,
        "service": seen.service,
        "state": seen.state,
    }


def _namespace_json(seen: Namespace) -> dict[str, Any]:
    return {"nsid": seen.nsid, "device": f"/dev/{seen.name}", "size": seen.size, "block_size": seen.block_size}


def paths_of(transport: Any, addresses: Sequence[str], service: str, host_address: str) -> tuple[FabricPath, ...]:
    return tuple(
        FabricPath(transport=transport, address=address, service=service, host_address=host_address)
        for address in addresses or ("",)
    )
