"""Moving a machine to a second QEMU. What speaks QMP is the `Migrator`."""

from __future__ import annotations

from typing import Protocol

from nvlane.apply.operations.found import FoundNothing
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.migrate_step import MigrateMachine, StayHere


class Migrator(Protocol):
    """`move` returns when the guest runs there; `stay` when it runs where it was; `there` tells whether a QEMU
    answers. The first two raise HostError or WireError."""

    def move(self, step: MigrateMachine) -> None: ...
    def stay(self, inverse: StayHere) -> None: ...
    def there(self, qmp: str) -> bool: ...


class MigrateMachineOperation:
    def __init__(self, migrator: Migrator) -> None:
        self._migrator = migrator

    def observe(self, host: Host, step: MigrateMachine) -> FoundNothing:  # noqa: ARG002
        for name, qmp in (("its QEMU", step.source), ("the second QEMU", step.target)):
            if not self._migrator.there(qmp):
                raise HostError(f"{step.machine}: {name} does not answer on {qmp}", remedy="see nvlane status")
        return FoundNothing()

    def check(self, host: Host, step: MigrateMachine, found: FoundNothing) -> None: ...

    def perform(self, host: Host, step: MigrateMachine, found: FoundNothing, keep: Keep) -> None:  # noqa: ARG002
        self._migrator.move(step)

    def inverse(self, step: MigrateMachine, found: FoundNothing, result: None) -> StayHere:  # noqa: ARG002
        return StayHere(machine=step.machine, source=step.source, target=step.target, socket=step.socket)


class StayHereReversal(Idempotent):
    def __init__(self, migrator: Migrator) -> None:
        self._migrator = migrator

    def observe(self, host: Host, inverse: StayHere) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: StayHere, found: FoundNothing) -> Outcome:  # noqa: ARG002
        try:
            if host.exists(inverse.socket):
                host.unlink(inverse.socket)
            if not self._migrator.there(inverse.source):
                return already("the machine is gone")
            self._migrator.stay(inverse)
        except NvlaneError as error:
            return failed(error.message, remedy=f"nvlane down {inverse.machine} ends the machine, which always works")
        return PUT_BACK
