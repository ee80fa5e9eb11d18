"""A target that was started by a journaled step, ended and started again: after a crash, or for a new program.

The journal needs no new kind of step: the process has the token of the step that first started it, so that undo finds
it wherever nvlane dies in between, and its id is written down like that of the first.

::

    new sockets listen on the old paths ──> the old process ends ──> the new one has the sockets ──> it is ready
         whoever connects from here on waits until the new one answers
"""

from __future__ import annotations

import contextlib

from nvlane.apply.journal import Entry, Journal
from nvlane.apply.operations.found import FoundProcess, MadeProcess, Result
from nvlane.apply.operations.launch import Launcher, end_process, living, start_process
from nvlane.apply.operations.operation import Operation
from nvlane.apply.record import Kept
from nvlane.model.errors import Bug, HostError
from nvlane.model.host import Host
from nvlane.plan.step import StartTarget, StopTarget


def target_processes(host: Host, operation: Operation[StartTarget], entry: Entry) -> tuple[MadeProcess, ...]:
    """The living processes of a target's step; () when it has ended."""
    inverse = operation.inverse(_step(entry), entry.found, entry.result)
    if not isinstance(inverse, StopTarget):
        raise Bug(f"the inverse of {entry.step} is no StopTarget")
    return living(host, inverse)


def end_target(host: Host, operation: Operation[StartTarget], entry: Entry) -> None:
    """End it and leave everything else as it is. Raises HostError when it does not end."""
    for process in target_processes(host, operation, entry):
        if not end_process(host, process):
            raise HostError(
                f"{_step(entry).name} (process {process.pid}) does not end, not even by SIGKILL",
                remedy=f"see what the kernel waits for: cat /proc/{process.pid}/stack",
            )


def start_target_again(
    host: Host,
    operation: Operation[StartTarget],
    launcher: Launcher,
    journal: Journal,
    entry: Entry,
    step: StartTarget,
) -> None:
    """Start `step`, which is that of `entry` or the same with another program, in the place of what runs of it."""
    if not isinstance(entry.found, FoundProcess):
        raise Bug(f"{step.name} was started without a token")

    def keep(result: Result) -> None:
        journal.append(Kept(n=entry.n, result=result))

    for path in launcher.launch(step).sockets.values():
        # The old process keeps listening on it, but nobody finds it there any more.
        with contextlib.suppress(FileNotFoundError):
            host.unlink(path)
    start_process(host, launcher, step, entry.found.token, keep, before=lambda: end_target(host, operation, entry))


def _step(entry: Entry) -> StartTarget:
    if not isinstance(entry.step, StartTarget):
        raise Bug(f"{entry.step.describe()} starts no target")
    return entry.step
