"""Jobs as values, and the fio command that each becomes (fio(1), HOWTO of fio 3.x)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nvlane.model.errors import SpecError
from nvlane.model.size import KIB, format_size
from nvlane.spec.nearest import nearest

#: Depths of the full set: a program that waits for each I/O, a few of them, a database, and dense I/O.
DEPTHS: Final = (1, 8, 32, 128)


class Pattern(StrEnum):
    """What a job does, in fio's own words (`rw=`)."""

    RANDOM_READ = "randread"
    RANDOM_WRITE = "randwrite"
    RANDOM_MIXED = "randrw"
    READ = "read"
    WRITE = "write"

    @property
    def writes(self) -> bool:
        return self not in (Pattern.RANDOM_READ, Pattern.READ)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One load: blocks of `block_size` bytes, `depth` of them in flight for each of `workers` processes."""

    pattern: Pattern
    block_size: int
    depth: int
    workers: int = 1

    @property
    def name(self) -> str:
        """As a person says it: 'randread-4k-32', and '...-32x4' with four workers."""
        size = format_size(self.block_size).removesuffix("iB").lower()
        return f"{self.pattern}-{size}-{self.depth}" + (f"x{self.workers}" if self.workers > 1 else "")


def full_set(workers: int = 1) -> tuple[Job, ...]:
    """4 KiB random read, write and mixed at each depth, and 128 KiB sequential read and write."""
    random = (Pattern.RANDOM_READ, Pattern.RANDOM_WRITE, Pattern.RANDOM_MIXED)
    small = [Job(pattern=p, block_size=4 * KIB, depth=d, workers=workers) for p in random for d in DEPTHS]
    large = [Job(pattern=p, block_size=128 * KIB, depth=8, workers=workers) for p in (Pattern.READ, Pattern.WRITE)]
    return (*small, *large)


def quick_set(workers: int = 1) -> tuple[Job, ...]:
    """What a person looks at first: one I/O at a time, and many."""
    return tuple(
        Job(pattern=pattern, block_size=4 * KIB, depth=depth, workers=workers)
        for pattern, depth in (
            (Pattern.RANDOM_READ, 1),
            (Pattern.RANDOM_READ, 32),
            (Pattern.RANDOM_WRITE, 1),
            (Pattern.RANDOM_WRITE, 32),
        )
    )


def chosen(names: Sequence[str], workers: int = 1) -> tuple[Job, ...]:
    """Jobs of the full set by name, in the order of the set; a name without its depth takes every depth.

    Raises SpecError for a name that is none."""
    known = full_set(workers)
    plain = {job: job.name.split("x")[0] for job in known}
    for name in names:
        if not any(_fits(name, text) for text in plain.values()):
            words = ", ".join(plain.values())
            raise SpecError(
                f"there is no job '{name}'{nearest(name, plain.values())}", place="--jobs", remedy=f"jobs: {words}"
            )
    return tuple(job for job in known if any(_fits(name, plain[job]) for name in names))


def _fits(name: str, job: str) -> bool:
    return job == name or job.startswith(f"{name}-")


def fio_words(job: Job, device: str, *, milliseconds: int, size: int, read_only: bool) -> tuple[str, ...]:
    """fio's arguments for one run on a device (a block node in the guest, of `size` bytes).

    O_DIRECT, so that the guest's page cache is not what is measured; libaio, which every guest kernel has, also where
    io_uring is forbidden; `norandommap`, for the map of a large drive costs more than the I/O.
    """
    return (
        f"--name={job.name}",
        f"--filename={device}",
        f"--rw={job.pattern}",
        f"--bs={job.block_size}",
        f"--iodepth={job.depth}",
        f"--numjobs={job.workers}",
        f"--size={size // job.block_size * job.block_size}",
        f"--runtime={milliseconds}ms",
        "--time_based",
        "--ioengine=libaio",
        "--direct=1",
        "--norandommap",
        "--randrepeat=0",
        "--refill_buffers",
        "--group_reporting",
        "--output-format=json+",
        *(("--readonly",) if read_only or not job.pattern.writes else ()),
    )


#: What runs once after each change of the lane and is not counted: queues are made, caches filled, clocks raised.
WARM_UP: Final = Job(pattern=Pattern.RANDOM_READ, block_size=4 * KIB, depth=8)
