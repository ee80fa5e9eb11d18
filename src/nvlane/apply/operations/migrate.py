"""Moving a machine to a second QEMU. What speaks QMP is the `Migrator`."""

from __future__ import annotations

from typing import Protocol

from nvlane.apply.operations.found import FoundNothing
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.migrate_step import MigrateMachine, ServeDisks, StayHere, StopServing


class Migrator(Protocol):
    """`serve` and `unserve` begin and end the NBD server of the second QEMU (one that does not serve is well); `move`
    returns when the guest runs there; `stay` when it runs where it was; `there` tells whether a QEMU answers. All but
    the last raise HostError or WireError."""

    def serve(self, step: ServeDisks) -> None: ...
    def unserve(self, qmp: str) -> None: ...
    def move(self, step: MigrateMachine) -> None: ...
    def stay(self, inverse: StayHere) -> None: ...
    def there(self, qmp: str) -> bool: ...


class ServeDisksOperation:
    def __init__(self, migrator: Migrator) -> None:
        self._migrator = migrator

    def observe(self, host: Host, step: ServeDisks) -> FoundNothing:  # noqa: ARG002
        if not self._migrator.there(step.target):
            raise HostError(f"{step.machine}: the second QEMU does not answer on {step.target}")
        return FoundNothing()

    def check(self, host: Host, step: ServeDisks, found: FoundNothing) -> None: ...

    def perform(self, host: Host, step: ServeDisks, found: FoundNothing, keep: Keep) -> None:  # noqa: ARG002
        self._migrator.serve(step)

    def inverse(self, step: ServeDisks, found: FoundNothing, result: None) -> StopServing:  # noqa: ARG002
        return StopServing(machine=step.machine, target=step.target, socket=step.socket)


class StopServingReversal(Idempotent):
    def __init__(self, migrator: Migrator) -> None:
        self._migrator = migrator

    def observe(self, host: Host, inverse: StopServing) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: StopServing, found: FoundNothing) -> Outcome:  # noqa: ARG002
        try:
            if not self._migrator.there(inverse.target):
                return already("the second QEMU is gone")
            self._migrator.unserve(inverse.target)
        except NvlaneError as error:
            return failed(error.message, remedy=f"nvlane down {inverse.machine} ends the machine, which always works")
        finally:
            if host.exists(inverse.socket):
                host.unlink(inverse.socket)
        return PUT_BACK


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
