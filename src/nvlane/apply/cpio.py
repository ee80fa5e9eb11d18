"""A writer of cpio archives in the 'new ASCII' form, the one that Linux unpacks as an initramfs.

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel. The same entries give the same
bytes: inode numbers count up, times are 0, everything belongs to root.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file, directory, link or device node; `path` is absolute, `mode` has the type bits of stat(7)."""

    path: PurePosixPath
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def file(path: str, content: bytes, *, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path=PurePosixPath(path), mode=stat.S_IFREG | mode, content=content)


def directory(path: str) -> Entry:
    """A directory, 0755."""
    return Entry(path=PurePosixPath(path), mode=stat.S_IFDIR | 0o755)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link to `target`."""
    return Entry(path=PurePosixPath(path), mode=stat.S_IFLNK | 0o777, content=target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    """A character device node, 0600."""
    return Entry(path=PurePosixPath(path), mode=stat.S_IFCHR | 0o600, device=(major, minor))


def write(stream: BinaryIO, entries: Iterable[Entry]) -> None:
    """Write the archive. Missing parent directories are added; raises ValueError for a path given twice."""
    number = 0
    for number, entry in enumerate(_with_parents(entries), start=1):
        _write_one(stream, number, str(entry.path).lstrip("/"), entry)
    _write_one(stream, number + 1, TRAILER, Entry(path=PurePosixPath(TRAILER), mode=0))


def _with_parents(entries: Iterable[Entry]) -> list[Entry]:
    every: dict[PurePosixPath, Entry] = {}
    for entry in entries:
        if not entry.path.is_absolute():
            raise ValueError(f"{entry.path} is not absolute")
        if entry.path in every:
            raise ValueError(f"{entry.path} is given twice")
        every[entry.path] = entry
    for path in list(every):
        for parent in path.parents[:-1]:
            every.setdefault(parent, directory(str(parent)))
    # Parents sort before what they hold: the kernel unpacks in order and makes no directories.
    return [every[path] for path in sorted(every)]


def _write_one(stream: BinaryIO, number: int, name: str, entry: Entry) -> None:
    encoded = name.encode() + b"\0"
    is_directory = stat.S_ISDIR(entry.mode)
    fields = (
        number,
        entry.mode,
        0,  # uid
        0,  # gid
        2 if is_directory else 1,  # links
        0,  # mtime
        len(entry.content),
        0,  # the archive's own device, major and minor
        0,
        *entry.device,
        len(encoded),
        0,  # checksum, unused in this form
    )
    header = MAGIC + b"".join(b"%08X" % field for field in fields) + encoded
    stream.write(header + _padding(len(header)))
    stream.write(entry.content + _padding(len(entry.content)))


def _padding(length: int) -> bytes:
    return b"\0" * (-length % 4)
