"""Partitions that only the kernel knows: made and removed by ioctl, so nothing is written for them."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_BLKPG, _ADD, _DEL = 0x1269, 1, 2  # include/uapi/linux/blkpg.h


class _Partition(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("number", ctypes.c_int),
        ("names", ctypes.c_char * 128),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("length", ctypes.c_int),
        ("data", ctypes.c_void_p),
    )


def _blkpg(disk: str, op: int, number: int, start: int, length: int) -> None:
    partition = _Partition(start, length, number, b"")
    argument = _Argument(op, 0, ctypes.sizeof(partition), ctypes.addressof(partition))
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _BLKPG, argument)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def partitions(disk: str, start: int, sizes: Sequence[int]) -> Iterator[list[str]]:
    """Nodes of partitions of these sizes (bytes), one after the other from `start` on."""
    nodes: list[str] = []
    try:
        for number, size in enumerate(sizes, 1):
            _blkpg(disk, _ADD, number, start, size)
            nodes.append(f"{disk}p{number}")
            start += size
            _await(nodes[-1])
        yield nodes
    finally:
        for number in range(len(nodes), 0, -1):
            _remove(disk, number)


def _await(node: str) -> None:
    deadline = time.monotonic() + 10
    while not Path(node).exists():
        assert time.monotonic() < deadline, f"{node} does not appear"
        time.sleep(0.02)


def _remove(disk: str, number: int) -> None:
    """What was on it may let it go a moment later (md and bcache do so from a worker): a poll with a deadline."""
    deadline = time.monotonic() + 20
    while True:
        try:
            _blkpg(disk, _DEL, number, 0, 0)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
