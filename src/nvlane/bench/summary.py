"""What the samples of a measurement say: a row for each lane and job, and whether the expected order holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from nvlane.bench.fio import merged
from nvlane.bench.latency import SHOWN, percentile
from nvlane.bench.result import Result, Sample
from nvlane.bench.statistics import Interval, ratio
from nvlane.spec.lane import LaneKind

#: The order under dense I/O on real hardware: what stands between guest and drive grows from one to the next.
EXPECTED: Final = (LaneKind.PASSTHROUGH, LaneKind.VHOST_USER, LaneKind.USERSPACE, LaneKind.EMULATED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Microseconds of the host's processors for one I/O."""

    vcpus: float
    qemu: float
    target: float
    kernel: float
    host_busy: float

    @property
    def overhead(self) -> float:
        return self.qemu + self.target + self.kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One lane at one job: medians over rounds, percentiles (microseconds) of all rounds' I/Os together, and IOPS as a
    part of those of the fastest lane."""

    lane: str
    job: str
    rounds: int
    iops: float
    bytes_a_second: float
    latency: Mapping[str, float]
    cost: Cost
    to_fastest: Interval


def rows(result: Result) -> tuple[Row, ...]:
    """A row for each lane and job that has samples, job by job in the order of the series."""
    found: list[Row] = []
    for job in result.series.jobs:
        samples = {lane.name: result.of(lane.name, job.name) for lane in result.series.lanes}
        iops = {lane: [sample.iops for sample in its] for lane, its in samples.items() if its}
        if not iops:
            continue
        fastest = max(iops, key=lambda lane: median(iops[lane]))
        found += [_row(lane, job.name, samples[lane], ratio(iops[lane], iops[fastest])) for lane in iops]
    return tuple(found)


def _row(lane: str, job: str, samples: Sequence[Sample], to_fastest: Interval) -> Row:
    times = merged([sample.latency for sample in samples])
    return Row(
        lane=lane,
        job=job,
        rounds=len(samples),
        iops=median([sample.iops for sample in samples]),
        bytes_a_second=median([sample.bytes / sample.seconds for sample in samples]),
        latency={f"{part:g}": percentile(times, part) / 1000 for part in SHOWN},
        cost=Cost(
            vcpus=median([sample.cpu.vcpus / sample.ios * 1e6 for sample in samples]),
            qemu=median([sample.cpu.qemu / sample.ios * 1e6 for sample in samples]),
            target=median([sample.cpu.target / sample.ios * 1e6 for sample in samples]),
            kernel=median([sample.cpu.kernel / sample.ios * 1e6 for sample in samples]),
            host_busy=median([sample.cpu.host_busy / sample.ios * 1e6 for sample in samples]),
        ),
        to_fastest=to_fastest,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Whether the expected order holds at one job: `pairs` are neighbours in it that were both measured, each with the
    second one's IOPS as a part of the first one's. `holds` is None where the intervals leave it open."""

    job: str
    pairs: tuple[tuple[str, str, Interval], ...]
    holds: bool | None


def orders(result: Result) -> tuple[Order, ...]:
    """The expected order, job by job; of several lanes of one kind the first stands for it."""
    names = {lane.kind: lane.name for lane in reversed(result.series.lanes)}
    expected = [names[kind] for kind in EXPECTED if kind in names]
    found: list[Order] = []
    for job in result.series.jobs:
        iops = {lane: [sample.iops for sample in result.of(lane, job.name)] for lane in expected}
        there = [lane for lane in expected if iops[lane]]
        pairs = tuple((a, b, ratio(iops[b], iops[a])) for a, b in pairwise(there))
        if pairs:
            found.append(Order(job=job.name, pairs=pairs, holds=_holds([interval for _, _, interval in pairs])))
    return tuple(found)


def _holds(intervals: Sequence[Interval]) -> bool | None:
    if any(interval.low > 1 for interval in intervals):
        return False
    return True if all(interval.high < 1 for interval in intervals) else None
