"""Steps of a migration: a second QEMU that waits for the machine, and the way over.

Both are undone while the machine is still where it was; afterwards the second QEMU is the machine's, and ends with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nvlane.model.device import Device, MachineDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveMachine:
    """Start QEMU with the same devices as the machine that is to come has; it waits for it (`-incoming defer`)."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    binary: str
    machine: MachineDevice
    devices: tuple[Device, ...]
    memlock: int | None = None

    def describe(self) -> str:
        return f"start a second QEMU for {self.machine.name} in {self.machine.runtime}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeDisks:
    """Let a second QEMU that waits for its machine serve some of its block nodes over NBD, for the first one to fill:
    on the UNIX socket `socket`, as that QEMU names it."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    target: str
    socket: str
    nodes: tuple[str, ...]

    def describe(self) -> str:
        return f"let the second QEMU serve {', '.join(self.nodes)} over NBD"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateMachine:
    """Move the guest from the QEMU behind one QMP socket to that behind another, through the UNIX socket `socket`;
    `incoming` is what the second one calls that socket ('': the same).

    `jobs` are mirrors that fill the second one's disks, through the block nodes `nodes` of the first one: they end, as
    whole copies, when the guest stands still and before the second one has it."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    source: str
    target: str
    socket: str
    incoming: str = ""
    jobs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()

    def describe(self) -> str:
        return f"move {self.machine} to the second QEMU"


@dataclass(frozen=True, slots=True, kw_only=True)
class StayHere:
    """Cancel a migration; the guest goes on at its source."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    source: str
    target: str
    socket: str

    def describe(self) -> str:
        return f"let {self.machine} go on where it was"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopServing:
    """End the NBD server of a second QEMU; `socket` as nvlane sees it, to be removed."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    target: str
    socket: str

    def describe(self) -> str:
        return f"let the second QEMU of {self.machine} serve no disks any more"


MigrateStep = ReceiveMachine | ServeDisks | MigrateMachine
MigrateInverse = StayHere | StopServing
