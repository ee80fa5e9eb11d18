"""The processor time that a machine and what serves it have used, read from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nvlane.apply.operations.found import MadeProcess
from nvlane.bench.cpu import STORAGE_THREADS, Thread, Times, read_stat, times
from nvlane.cli.service.runs import must_be_up
from nvlane.cli.service.world import World
from nvlane.model.host import HostReader
from nvlane.plan.step import StartTarget

_KTHREADD = 2  # the parent of every thread of the kernel (kernel/kthread.c)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The processes whose time is counted, as they are now: QEMU, and the targets of the lane that is in."""

    qemu: int
    targets: tuple[int, ...]


def watched(world: World, name: str) -> Watched:
    seen = must_be_up(world, name)
    made = [entry.result for entry in seen.run.outstanding if isinstance(entry.step, StartTarget)]
    return Watched(qemu=seen.pid, targets=tuple(one.pid for one in made if isinstance(one, MadeProcess)))


def read_times(host: HostReader, who: Watched) -> Times:
    """One reading of all counters."""
    return times(
        qemu=read_stat(host.read_text(f"/proc/{who.qemu}/stat")),
        qemu_threads=[thread for _, thread in _threads(host, _tasks(host, who.qemu))],
        targets=[read_stat(host.read_text(f"/proc/{pid}/stat")) for pid in who.targets],
        kernel_threads=dict(_storage_threads(host)),
        host=host.read_text("/proc/stat").splitlines()[0],
        ticks_a_second=os.sysconf("SC_CLK_TCK"),
    )


def _tasks(host: HostReader, pid: int) -> list[str]:
    return [f"/proc/{pid}/task/{task}/stat" for task in host.listdir(f"/proc/{pid}/task")]


def _threads(host: HostReader, files: Sequence[str]) -> Iterator[tuple[str, Thread]]:
    for file in files:
        try:
            text = host.read_text(file)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        yield text.rpartition(")")[2], read_stat(text)


def _storage_threads(host: HostReader) -> Iterator[tuple[int, Thread]]:
    pids = [name for name in host.listdir("/proc") if name.isdecimal()]
    for pid in pids:
        for rest, thread in _threads(host, [f"/proc/{pid}/stat"]):
            if int(rest.split()[1]) == _KTHREADD and STORAGE_THREADS.fullmatch(thread.name):
                yield int(pid), thread
