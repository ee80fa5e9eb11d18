"""Starting and ending real processes for tests, with the launchers of the product."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from nvlane.apply.operations.launch import FIRST_DESCRIPTOR, Launcher
from nvlane.apply.process import spawn
from nvlane.model.errors import NvlaneError

DEADLINE = 30.0


def listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1)
    return listener


def ended(pid: int, deadline: float = DEADLINE) -> int:
    """Wait for our child to end and reap it; its exit status, negative for a signal."""
    process = os.pidfd_open(pid)
    try:
        assert select.select([process], [], [], deadline)[0], f"process {pid} has not ended within {deadline} s"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(process)


@contextlib.contextmanager
def started(launcher: Launcher, step: Any) -> Iterator[int]:
    """A process that is ready; it is asked to quit at the end, and must do so with status 0."""
    launch = launcher.launch(step)
    Path(launch.directory).mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as sockets:
        numbers = {name: FIRST_DESCRIPTOR + index for index, name in enumerate(launch.sockets)}
        ours = {numbers[name]: sockets.enter_context(listen(path)).fileno() for name, path in launch.sockets.items()}
        pid = spawn(launcher.argv(step, numbers), log=Path(launch.log), fds=ours, memlock=launch.memlock)
    try:
        launcher.ready(step, pid, DEADLINE)
        yield pid
        launcher.quit(launch.directory, launch.name, DEADLINE)
    except BaseException:
        with contextlib.suppress(ProcessLookupError, NvlaneError):
            os.kill(pid, 9)
        ended(pid)
        raise
    assert ended(pid) == 0, Path(launch.log).read_text()


def wait_until(done: Callable[[], bool], what: str) -> None:
    """For what has no event: a short poll with a deadline."""
    until = time.monotonic() + DEADLINE
    while not done():
        assert time.monotonic() < until, f"{what}: not within {DEADLINE} s"
        time.sleep(0.01)
