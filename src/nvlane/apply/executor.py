"""The one loop that changes a host.

For each step: look, compare with the plan, write down what is about to be done and what was found, do it, write down
that it is done. When a step fails, what this call did is undone at once through the same journal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from nvlane.apply.journal import Journal
from nvlane.apply.operations.found import Found, Result
from nvlane.apply.operations.operation import Operation
from nvlane.apply.operations.processes import boot_id
from nvlane.apply.operations.table import Operations
from nvlane.apply.progress import Progress, Silent
from nvlane.apply.record import Done, Failed, Intent, Kept
from nvlane.apply.store import modules_of_others, shared_of_others
from nvlane.apply.undo import undo
from nvlane.model.errors import Bug, HostError, NotRestored, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.step import Step

#: Makes a context in which this process alone changes the host: `Store.host_lock`.
HostLock = Callable[[], AbstractContextManager[None]]


def apply(
    steps: Sequence[Step],
    *,
    host: Host,
    journal: Journal,
    operations: Operations,
    progress: Progress | None = None,
    keep: bool = False,
    lock: HostLock = contextlib.nullcontext,
) -> tuple[int, ...]:
    """Do the steps in order; the numbers that they got in the journal.

    Raises the error of the step that failed, after everything that this call did is undone (unless `keep`); or
    NotRestored, from that error, when the undo itself left something.
    """
    progress = progress or Silent()
    operations = operations.beside(
        lambda: modules_of_others(journal.directory), lambda: shared_of_others(journal.directory)
    )
    numbers: list[int] = []
    try:
        for index, step in enumerate(steps):
            progress.begins(index, len(steps), step.describe())
            try:
                _one(step, host, journal, operations, lock, numbers)
            except NvlaneError as error:
                progress.ends(index, len(steps), step.describe(), error.message)
                raise
            progress.ends(index, len(steps), step.describe(), "")
    except (Exception, KeyboardInterrupt) as error:
        if not keep and numbers:
            report = undo(journal, host=host, operations=operations, progress=progress, only=numbers, lock=lock)
            if report.failed:
                raise NotRestored(f"{error}\n{report.text()}", remedy="nvlane restore tries again") from error
        raise
    return tuple(numbers)


def _one(step: Step, host: Host, journal: Journal, operations: Operations, lock: HostLock, numbers: list[int]) -> None:
    operation: Operation[Any] | None = operations.forward.get(type(step))
    if operation is None:
        raise Bug(f"no operation does {type(step).__name__}")
    with lock():
        found = _looked(operation, host, step)
        n = journal.next_n
        journal.append(Intent(n=n, boot_id=boot_id(host), step=step, found=found))
        numbers.append(n)

        def keep(result: Result) -> None:
            journal.append(Kept(n=n, result=result))

        try:
            operation.perform(host, step, found, keep)
        except OSError as error:
            message = f"cannot {step.describe()}: {error.strerror} ({error.filename or 'no path'})"
            journal.append(Failed(n=n, error=message))
            raise HostError(message) from error
        except NvlaneError as error:
            journal.append(Failed(n=n, error=error.message))
            raise
        journal.append(Done(n=n))


def _looked(operation: Operation[Any], host: Host, step: Step) -> Found:
    """The state now, when it is what the plan saw; raises Refused or HostError when not."""
    try:
        found = operation.observe(host, step)
        operation.check(host, step, found)
    except OSError as error:
        raise HostError(f"cannot look before '{step.describe()}': {error.strerror} ({error.filename})") from error
    return found
