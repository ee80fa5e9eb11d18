"""What a lane is told besides its own table: the machine, the facts, where it stands, and the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from nvlane.facts.shape import Facts, Qemu
from nvlane.model.claim import Claim
from nvlane.model.device import Device, MachineDevice, MemoryNeeds
from nvlane.plan.engine import Engines
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import Step
from nvlane.spec.document import Spec
from nvlane.spec.lane import LaneKind

#: Bytes that the write proof writes, and where: past partition tables and file system superblocks at the front.
PROOF_LENGTH = 1 << 20
PROOF_OFFSET = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One lane's place in one plan. `running` is the machine that a lane is attached to while it runs."""

    spec: Spec
    index: int
    facts: Facts
    engines: Engines
    memory: int  # guest memory in bytes that a pinned lane locks
    maps: int  # how many times QEMU maps and locks it
    node: int  # the NUMA node that the machine was placed on
    bind: int  # the node that memory is bound to; -1: none
    cpus: frozenset[int]  # processors of that node; empty: any
    sandbox: bool
    running: MachineDevice | None = None

    @property
    def hot(self) -> bool:
        return self.running is not None

    @property
    def id(self) -> str:
        return self.spec.lane_id(self.index)

    @property
    def place(self) -> str:
        return f"lane[{self.index}]"

    @property
    def vcpus(self) -> int:
        return self.spec.machine.cpus

    @property
    def runtime(self) -> str:
        """The machine's directory of sockets and logs."""
        return f"{self.facts.runtime_dir}/{self.spec.machine.name}"

    @property
    def qemu(self) -> Qemu:
        return self.facts.qemu or Qemu(path=self.spec.machine.qemu, version="", error="not found")

    def refuse(self, code: str, reason: str, *, evidence: tuple[str, ...] = (), remedy: str = "") -> Refusal:
        return Refusal(code=code, lane=self.index, reason=reason, evidence=evidence, remedy=remedy)


class Lane(Protocol):
    """One way from storage to a guest. `lane` is its table of the spec; every method is a pure function."""

    kind: ClassVar[LaneKind]

    def refusals(self, lane: Any, at: Context) -> tuple[Refusal, ...]:
        """Why it cannot or must not be done. The other methods are called only when this is empty."""
        ...

    def notes(self, lane: Any, at: Context) -> tuple[Note, ...]: ...
    def needs(self, lane: Any, at: Context) -> MemoryNeeds: ...
    def steps(self, lane: Any, at: Context) -> tuple[Step, ...]: ...
    def devices(self, lane: Any, at: Context) -> tuple[Device, ...]: ...
    def claims(self, lane: Any, at: Context) -> tuple[Claim, ...]: ...
