"""Processor time on the host for each I/O, from /proc before and after a run.

Counted are QEMU (its vCPUs apart: what the guest itself computes is there), the target where the lane has one, and
what the kernel does in threads of its own: those of vhost, of NVMe and of block queues. Workers of io_uring and of
vhost (since Linux 6.4) are threads of the process that they serve, and in its time. What interrupts take from others,
and what a shared kworker did for somebody else, no counter tells apart: `host_busy` is the whole host's time, as its
timer tick counts it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

#: Threads of the kernel that storage runs in: vhost's, NVMe's interrupts and work, block queues, io_uring's poller.
STORAGE_THREADS: Final = re.compile(r"vhost-\d+|irq/\d+-nvme.*|nvme.*|iou-.*|kworker/.*(nvme|blkcg|kblockd|vfio|dio).*")
_VCPU: Final = re.compile(r"CPU \d+/.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds of processor time since their start: QEMU's vCPUs, the rest of QEMU, the target, storage threads of the
    kernel, and everything on the host that was not idle."""

    vcpus: float = 0.0
    qemu: float = 0.0
    target: float = 0.0
    kernel: float = 0.0
    host_busy: float = 0.0

    def since(self, before: Times) -> Times:
        """What was spent between two readings. Counters may step back a tick when the kernel scales them."""
        return Times(
            vcpus=max(self.vcpus - before.vcpus, 0.0),
            qemu=max(self.qemu - before.qemu, 0.0),
            target=max(self.target - before.target, 0.0),
            kernel=max(self.kernel - before.kernel, 0.0),
            host_busy=max(self.host_busy - before.host_busy, 0.0),
        )

    @property
    def overhead(self) -> float:
        """What the host spent beside running the guest's own instructions."""
        return self.qemu + self.target + self.kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """One line of /proc/PID/stat: its name, and ticks in user and in kernel mode."""

    name: str
    ticks: int


def read_stat(text: str) -> Thread:
    """proc_pid_stat(5): the name stands in brackets and may hold anything; utime and stime are fields 14 and 15."""
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    return Thread(name=head.partition("(")[2], ticks=int(fields[11]) + int(fields[12]))


def busy_ticks(stat: str) -> int:
    """The first line of /proc/stat without idle and iowait; guest time is in user time already (proc_stat(5))."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(word) for word in stat.split()[1:9])
    return user + nice + system + irq + softirq + steal


def times(
    *,
    qemu: Thread,
    qemu_threads: Iterable[Thread],
    targets: Iterable[Thread],
    kernel_threads: Mapping[int, Thread],
    host: str,
    ticks_a_second: int,
) -> Times:
    """One reading, from lines of /proc. A process's own line also has its threads that have ended."""
    vcpus = sum(thread.ticks for thread in qemu_threads if _VCPU.fullmatch(thread.name))
    kernel = sum(thread.ticks for thread in kernel_threads.values())
    return Times(
        vcpus=vcpus / ticks_a_second,
        qemu=(qemu.ticks - vcpus) / ticks_a_second,
        target=sum(target.ticks for target in targets) / ticks_a_second,
        kernel=kernel / ticks_a_second,
        host_busy=busy_ticks(host) / ticks_a_second,
    )
