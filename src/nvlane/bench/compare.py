"""A against B: two measurements, lane by lane and job by job."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

from nvlane.bench.result import Result
from nvlane.bench.statistics import Interval, holm, least_p, mann_whitney, ratio
from nvlane.model.errors import SpecError

#: Below it a difference is called one.
THRESHOLD: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """IOPS of B as a part of those of A. `p` is of the rank test, adjusted for all that were compared at once;
    `verdict` is 'faster', 'slower', 'no difference shown', or 'too few rounds'."""

    lane: str
    job: str
    before: float
    after: float
    change: Interval
    p: float
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`unmatched` are lanes and jobs that only one of the two has; `unlike` says what else differs between them."""

    rows: tuple[Difference, ...]
    unmatched: tuple[str, ...]
    unlike: tuple[str, ...]


def compare(before: Result, after: Result) -> Comparison:
    """Raises SpecError when the two have no lane and job in common."""
    first, second = _samples(before), _samples(after)
    shared = [key for key in first if key in second]
    if not shared:
        raise SpecError(
            "the two have no lane and job in common", remedy="measure both with the same --lanes and --jobs"
        )
    raw = [mann_whitney(first[key], second[key]) for key in shared]
    adjusted = holm(raw)
    rows = []
    for key, p in zip(shared, adjusted, strict=True):
        change = ratio(second[key], first[key])
        rows.append(
            Difference(
                lane=key[0],
                job=key[1],
                before=median(first[key]),
                after=median(second[key]),
                change=change,
                p=p,
                verdict=_verdict(change, p, least_p(len(first[key]), len(second[key])) * len(shared)),
            )
        )
    unmatched = tuple(
        f"{lane} {job}" for lane, job in [*first, *second] if not ((lane, job) in first and (lane, job) in second)
    )
    return Comparison(rows=tuple(rows), unmatched=unmatched, unlike=_unlike(before, after))


def _verdict(change: Interval, p: float, possible: float) -> str:
    if p < THRESHOLD:
        return "faster" if change.value > 1 else "slower"
    return "too few rounds" if possible >= THRESHOLD else "no difference shown"


def _samples(result: Result) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for sample in sorted(result.samples, key=lambda sample: sample.round):
        found.setdefault((sample.lane, sample.job), []).append(sample.iops)
    return found


def _unlike(before: Result, after: Result) -> tuple[str, ...]:
    """What a person has to know before believing that the lanes are what differs."""
    pairs = [
        (name, str(getattr(before.where, name)), str(getattr(after.where, name)))
        for name in ("hostname", "kernel", "processor", "cpus", "qemu", "accelerator", "storage", "guest")
    ]
    pairs += [
        ("nvlane", before.nvlane, after.nvlane),
        ("fio", before.fio, after.fio),
        ("milliseconds a run", str(before.series.milliseconds), str(after.series.milliseconds)),
    ]
    words = [f"{name}: {a or 'unknown'} before, {b or 'unknown'} after" for name, a, b in pairs if a != b]
    tables = {lane.name: lane.table for lane in before.series.lanes}
    words += [
        f"the lane {lane.name} is another"
        for lane in after.series.lanes
        if tables.get(lane.name, lane.table) != lane.table
    ]
    return tuple(words)
