"""Locks on directories: no lock file that could be left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from nvlane.model.errors import HostError


@contextlib.contextmanager
def locked_directory(path: Path, *, what: str, deadline: float = 0.0) -> Iterator[None]:
    """Hold flock(2) on a directory. When another process has it, wait at most `deadline` seconds, then raise HostError
    with its id. The kernel drops the lock with the process, however that ends."""
    descriptor = _open(path, what)
    try:
        end = time.monotonic() + deadline
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    holder = _holder(os.fstat(descriptor).st_ino)
                    raise HostError(
                        f"{what} is being worked on by another nvlane{holder}",
                        remedy="wait for it to end; or end it, then run nvlane restore",
                    ) from error
                # flock has no timeout of its own; this short wait is the poll.
                time.sleep(0.02)
        if not path.exists() or path.stat().st_ino != os.fstat(descriptor).st_ino:
            raise HostError(f"{what} has just been removed by another nvlane", remedy="run the same command again")
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, what: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise HostError(f"there is no {what} ({path})", remedy="nvlane status shows what there is") from error
    except PermissionError as error:
        raise HostError(f"{path} may not be read", remedy="be the user who started it, or root") from error


def _holder(inode: int) -> str:
    """' (process 12)': /proc/locks has 'FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END'."""
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        fields = line.split()
        if "FLOCK" in fields and fields[-3].rpartition(":")[2] == str(inode):
            return f" (process {fields[-4]})"
    return ""
