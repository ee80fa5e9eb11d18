"""The order of a measurement: the lanes in turns, round after round (A B C A B C), so that drift meets all alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One stay of the storage on one lane: the jobs of it that are still to be run."""

    round: int
    lane: str
    jobs: tuple[str, ...]


#: (round, lane, job): what one sample is the answer to.
Place = tuple[int, str, str]


def visits(lanes: Sequence[str], jobs: Sequence[str], rounds: int, done: frozenset[Place]) -> tuple[Visit, ...]:
    """What is left of a series: every lane once a round, in the same order, without what is `done`."""
    left = (
        Visit(round=number, lane=lane, jobs=tuple(job for job in jobs if (number, lane, job) not in done))
        for number in range(rounds)
        for lane in lanes
    )
    return tuple(visit for visit in left if visit.jobs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things took so far, in seconds: changes of the lane, and runs of a job."""

    changes: tuple[float, ...] = ()
    runs: tuple[float, ...] = ()

    def left(self, to_come: Sequence[Visit], jobs_left_here: int, *, change: float, run: float) -> float:
        """Seconds that are left; `change` and `run` are the guesses where nothing was seen yet."""
        runs = jobs_left_here + sum(len(visit.jobs) for visit in to_come)
        return len(to_come) * _mean(self.changes, change) + runs * _mean(self.runs, run)


def _mean(seen: Sequence[float], guess: float) -> float:
    return sum(seen) / len(seen) if seen else guess


def in_words(seconds: float) -> str:
    """'2 h 05 min', '4 min 10 s', '35 s', '0.5 s'."""
    if seconds < 3:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


def places(lanes: Sequence[str], jobs: Sequence[str], rounds: int) -> Iterator[Place]:
    """Every place of a series."""
    return ((number, lane, job) for number in range(rounds) for lane in lanes for job in jobs)
