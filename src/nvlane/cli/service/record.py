"""What a machine's journal remembers for later verbs, beside its steps: lanes, claims, evidence, proofs.

State survives the tool: everything here is a note of the journal, so that any verb works from a new shell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nvlane.apply.journal import Journal
from nvlane.apply.store import RunRecord, Store
from nvlane.model.claim import Claim, Evidence
from nvlane.model.codec import decode, encode
from nvlane.model.device import BlockNode, Device, MachineDevice
from nvlane.model.errors import HostError
from nvlane.plan.domain_step import DomainPart
from nvlane.spec.document import Spec
from nvlane.spec.reader import parse_lane, parse_spec
from nvlane.verify.look import Proof


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRecord:
    """One lane of a machine. `number` is its own for the life of the machine: claims and evidence name it.

    `steps` are the journal's numbers of what is undone when it is detached; `text` the TOML of a lane that was
    attached, `directory` where that file stood. Of a libvirt domain, `parts` are what a running one is asked to let
    go, and `additions` what its definition has of the lane.
    """

    number: int
    name: str
    kind: str
    devices: tuple[Device, ...]
    claims: tuple[Claim, ...]
    steps: tuple[int, ...]
    text: str = ""
    directory: str = ""
    detached: bool = False
    parts: tuple[DomainPart, ...] = ()
    additions: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainPlace:
    """Which libvirt domain a machine is: where libvirt is, the domain's UUID and its own name."""

    uri: str
    uuid: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkRecord:
    """What a verb began on the disks of a machine and has not settled: its steps are those from number `first` on, or
    `steps` where they are all done and the job `id` goes on by itself (`left`), until somebody completes or cancels it.

    `target` is the node that the disk is to go to (None: the disk stays where it is)."""

    id: str
    disk: str
    first: int
    steps: tuple[int, ...] = ()
    left: bool = False
    target: BlockNode | None = None
    over: bool = False  # the target keeps the old node below it: a snapshot
    runtime: str = ""  # of a migration: where the second QEMU has its sockets
    copies: Mapping[str, BlockNode] = field(default_factory=dict)  # and the nodes that disks go to with it, by disk


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineRecord:
    """One machine as its journal tells it. `complete` is False while `up` is at work, or when it was cut short.
    `domain` where the machine is libvirt's: its QEMU is then reached through that; `shared` are the numbers of those
    of its steps that belong to no lane."""

    name: str
    machine: MachineDevice
    binary: str
    source: str
    directory: str
    lanes: tuple[LaneRecord, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    proofs: tuple[Proof, ...] = ()
    complete: bool = False
    domain: DomainPlace | None = None
    shared: tuple[int, ...] = ()
    work: tuple[WorkRecord, ...] = ()

    @property
    def present(self) -> tuple[LaneRecord, ...]:
        return tuple(lane for lane in self.lanes if not lane.detached)

    @property
    def claims(self) -> tuple[Claim, ...]:
        return tuple(claim for lane in self.present for claim in lane.claims)

    @property
    def qmp(self) -> str:
        return f"{self.machine.runtime}/qmp.sock"

    @property
    def console(self) -> str:
        return f"{self.machine.runtime}/console.sock"

    def lane_name(self, number: int) -> str:
        return next((lane.name for lane in self.lanes if lane.number == number), f"lane {number}")

    def lane(self, name: str) -> LaneRecord:
        """The lane of this name that is there. Raises HostError."""
        for lane in self.present:
            if lane.name == name:
                return lane
        names = ", ".join(lane.name for lane in self.present) or "none"
        raise HostError(f"{self.name} has no lane '{name}'", remedy=f"its lanes are: {names}")


_KEY = "machine"


def keep(journal: Journal, record: MachineRecord) -> None:
    """Write the record into the journal; the last one counts."""
    journal.note(_KEY, record)


def recall(name: str, notes: Mapping[str, Any] | None) -> MachineRecord | None:
    """The record among a journal's notes; None when the run was cut short before there was one."""
    data = (notes or {}).get(_KEY)
    if data is None:
        return None
    try:
        return decode(MachineRecord, data)
    except ValueError as error:
        remedy = "use the nvlane that started it, or `nvlane restore` to end it"
        raise HostError(f"the record of {name} is not understood: {error}", remedy=remedy) from error


def domain_of(store: Store, name: str) -> str | None:
    """The connection URI of a run that is a libvirt domain's; None for any other, and for none."""
    record = recall(name, store.read(name).notes) if store.has(name) else None
    return record.domain.uri if record is not None and record.domain is not None else None


def recall_run(run: RunRecord) -> MachineRecord:
    """The record of a run that must have one. Raises HostError."""
    record = recall(run.name, run.notes)
    if record is None:
        raise HostError(f"{run.name} never came up", remedy=f"nvlane restore {run.name} puts back what it did")
    return record


def spec_now(text: str, record: MachineRecord) -> Spec:
    """The spec of a machine as it runs: its file, less what was detached, with what was attached.

    Every lane has its name written out, for the number in a default name would change with its place.
    """
    spec = parse_spec(text, record.source, record.directory)
    lanes = []
    for lane in record.present:
        table = parse_lane(lane.text, lane.name, lane.directory) if lane.text else spec.lanes[lane.number]
        lanes.append(dataclasses.replace(table, name=lane.name))
    return Spec(machine=spec.machine, lanes=tuple(lanes), source=spec.source)


def as_json(record: MachineRecord) -> dict[str, Any]:
    """What the verbs print of a machine with --json."""
    return {
        "machine": record.name,
        **({"domain": encode(record.domain)} if record.domain else {"qmp": record.qmp, "console": record.console}),
        "lanes": [{"name": lane.name, "kind": lane.kind, "number": lane.number} for lane in record.present],
        "evidence": [evidence_json(record, piece) for piece in record.evidence],
        "verified": all(piece.ok for piece in record.evidence) if record.evidence else None,
    }


def evidence_json(record: MachineRecord, piece: Evidence) -> dict[str, Any]:
    value: dict[str, Any] = encode(piece)
    return {**value, "lane": record.lane_name(piece.lane)}
