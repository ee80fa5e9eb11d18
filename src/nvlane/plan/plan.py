"""The plan: what would be done, or why not. The same spec and facts give the byte-equal plan."""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.model.claim import Claim
from nvlane.model.device import Device, MachineDevice
from nvlane.plan.step import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why something is not done: a stable `code` ('drive-mounted'), the reason, what was read, what would make it safe.

    `lane` is the index in the spec, None for the machine as a whole.
    """

    code: str
    lane: int | None
    reason: str
    evidence: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A thing that a person should know before saying yes, and that stops nothing: data on a drive that is given away,
    a sibling that is taken along, a drive on another NUMA node."""

    lane: int | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that `apply` and `verify` need. With refusals there are no steps."""

    machine: MachineDevice | None
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[Note, ...] = ()
    steps: tuple[Step, ...] = ()
    devices: tuple[Device, ...] = ()
    claims: tuple[Claim, ...] = ()
