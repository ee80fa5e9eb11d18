"""Things made once and kept: each in a directory of its own, complete or not there at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from nvlane.lab.places import cache_dir

_COMPLETE = ".complete"
_KEPT = 3


def key(*parts: str | bytes) -> str:
    """A short name for content: equal parts, equal key."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def kept(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The directory `<cache>/<kind>/<name>`, made by `make(directory)` when it is not there yet.

    It is made beside its place and renamed, under a lock, so that two builders never meet and an interrupted one
    leaves nothing. A directory whose files do not have the sizes recorded when it was made is made again.
    """
    final = cache_dir() / kind / name
    if _complete(final):
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
    with locked(final.parent / ".lock"):
        if _complete(final):
            return final
        with tempfile.TemporaryDirectory(prefix=".making-", dir=final.parent) as making:
            directory = Path(making) / "content"
            directory.mkdir()
            make(directory)
            (directory / _COMPLETE).write_text(_sizes(directory))
            shutil.rmtree(final, ignore_errors=True)
            directory.rename(final)
        _forget_old(final.parent)
    return final


def _forget_old(kind: Path) -> None:
    """Keep the newest few of a kind: recipes change, and an image is most of a gigabyte. A lab that runs on one that
    goes has it open, and keeps it."""
    made = [entry for entry in kind.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    for entry in sorted(made, key=lambda entry: entry.stat().st_mtime)[:-_KEPT]:
        shutil.rmtree(entry)


def _sizes(directory: Path) -> str:
    """Name and size of every file: what a full disk or a stray hand changes first."""
    lines: list[str] = []
    for parent, _, names in os.walk(directory):
        for name in names:
            size = os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - a thousand files, every start
            lines.append(f"{size} {parent[len(str(directory)) :]}/{name}\n")
    return "".join(sorted(line for line in lines if not line.endswith(f" /{_COMPLETE}\n")))


def _complete(directory: Path) -> bool:
    mark = directory / _COMPLETE
    return mark.is_file() and mark.read_text() == _sizes(directory)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that this file stands for; whoever else wants it waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
