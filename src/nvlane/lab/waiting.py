"""Waiting for what the kernel has no event for: one short poll with a deadline, here and nowhere else in the lab."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from nvlane.model.errors import HostError

_INTERVAL = 0.02


def until(condition: Callable[[], bool], what: str, *, timeout: float) -> None:
    """Return when `condition()` is true; HostError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() >= deadline:
            raise HostError(f"waited {timeout:g} s in vain for {what}")
        time.sleep(_INTERVAL)


def process_end(pid: int, *, timeout: float) -> bool:
    """Wait for a process, ours or not, to end (and reap it if it is ours). False when it is there after `timeout` s."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended = bool(select.select([descriptor], [], [], timeout)[0])
    finally:
        os.close(descriptor)
    if ended:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return ended  # not our child: its parent reaps it
    return ended


def start_time(pid: int) -> int:
    """When the process started, in clock ticks since boot (proc(5), stat, field 22); -1 when there is none.

    With the process id it names one process for ever: ids are used again, starts are not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] == "Z" else int(fields[19])
