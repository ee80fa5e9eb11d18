"""Why a process that nvlane started did not become ready, and on which processors its threads run."""

from __future__ import annotations

import os
import select
import shlex
from collections.abc import Sequence
from pathlib import Path

from nvlane.apply.process import status_text
from nvlane.model.cpus import format_cpus
from nvlane.model.errors import CommandFailed, HostError, NvlaneError
from nvlane.wire.lines import PeerClosed

_LAST_WORDS = 4096  # bytes of the log's end that are read
_ENDING = 5.0  # seconds from a closed socket to the end of its process


def explain_end(argv: Sequence[str], pid: int, log: str, error: NvlaneError) -> CommandFailed:
    """The error to raise for a process of ours that broke off with `error`: its command ready to paste, its
    status, the last words in its log."""
    if isinstance(error, PeerClosed):
        _wait_end(pid)
    return CommandFailed(shlex.join(argv), _status(pid) or error.message, _tail(log), remedy=f"the whole log is {log}")


def _wait_end(pid: int) -> None:
    """A process closes its sockets shortly before it ends: only then has it a status."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return  # it has ended, and somebody has taken its status
    try:
        select.select([process], [], [], _ENDING)
    finally:
        os.close(process)


def _status(pid: int) -> str:
    """'exit status 1' or 'killed by SIGSEGV' of a child of ours that has ended; '' for any other process. The
    child stays a zombie, for whoever waits for it."""
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    if ended is None:
        return ""
    return status_text(ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status)


def _tail(log: str) -> str:
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LAST_WORDS))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def pin_threads(pid: int, cpus: frozenset[int]) -> None:
    """Let every thread of a process run on these processors only; threads to come inherit that from the one
    that makes them (sched_setaffinity(2)). Nothing is done for an empty set."""
    if not cpus:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), cpus)
        except ProcessLookupError:
            continue  # a worker thread that has ended since the listing
        except OSError as error:
            raise HostError(
                f"cannot run process {pid} on the processors {format_cpus(cpus)}: {error.strerror}",
                remedy="name processors that are online and allowed in this control group (cpuset)",
            ) from error
