"""The statistics of a comparison: medians, the ratio of two with its interval, and a test of whether they differ.

Nothing is drawn at random: with as few values as a benchmark has rounds, all of a bootstrap's resamples can be
counted, and the rank test has its exact distribution. The same file always gives the same numbers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import comb, erfc, sqrt
from statistics import median

#: Up to so many arrangements of ranks the test is exact, beyond them normal.
_MOST_ARRANGEMENTS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A value with the interval that holds it with 95 % confidence."""

    value: float
    low: float
    high: float


def ratio(values: Sequence[float], reference: Sequence[float], *, confidence: float = 0.95) -> Interval:
    """median(values) / median(reference), with the percentile bootstrap's interval.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), 13.3. Of the resampled medians not a sample but the
    whole distribution is taken. With fewer than two values on a side there is nothing to resample, and the interval is
    the value.
    """
    parts: defaultdict[float, float] = defaultdict(float)
    below = _medians(tuple(reference))
    for above, p in _medians(tuple(values)).items():
        for under, q in below.items():
            parts[above / under] += p * q
    rest = (1 - confidence) / 2
    return Interval(
        value=median(values) / median(reference), low=_quantile(parts, rest), high=_quantile(parts, 1 - rest)
    )


def _quantile(parts: dict[float, float], wanted: float) -> float:
    done = 0.0
    for value, part in sorted(parts.items()):
        done += part
        if done >= wanted - 1e-12:
            return value
    return max(parts)


@cache
def _medians(values: tuple[float, ...]) -> dict[float, float]:
    """Median of a resample -> its probability, over all resamples with replacement.

    The middle order statistics of n draws from the ranks 1 to n: P(the k-th is at most rank i, the l-th at most rank
    j) is a sum of multinomial terms; the probability of each pair of ranks is made of differences of it.
    """
    ordered, n = sorted(values), len(values)
    found: defaultdict[float, float] = defaultdict(float)
    for i in range(1, n + 1):
        for j in range(i, n + 1):
            part = _both(n, i, j) - _both(n, i - 1, j) - _both(n, i, j - 1) + _both(n, i - 1, j - 1)
            if part > 1e-15:  # what rounding leaves of zero
                found[(ordered[i - 1] + ordered[j - 1]) / 2] += part
    return dict(found)


@cache
def _both(n: int, i: int, j: int) -> float:
    """P(the lower middle of n draws is at most rank i, and the upper middle at most rank j)."""
    i = min(i, j)
    low, high = (n + 1) // 2, n // 2 + 1  # one and the same where n is odd
    return sum(
        comb(n, a) * comb(n - a, b) * (i / n) ** a * ((j - i) / n) ** b * (1 - j / n) ** (n - a - b)
        for a in range(low, n + 1)
        for b in range(max(0, high - a), n - a + 1)
    )


def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p of Mann and Whitney's test: how likely two sets of values that come from the same source differ
    in rank as much as these.

    Exact, ties included, by counting the arrangements of the (doubled mid-)ranks with each sum (Mann and Whitney 1947,
    with ties as in Lehmann, Nonparametrics, 1.4); normal with the correction for ties where those are too many.
    """
    if not first or not second:
        return 1.0
    ranks = _double_ranks([*first, *second])
    n, m = len(first), len(second)
    seen, middle = sum(ranks[:n]), n * (n + m + 1)
    if comb(n + m, n) > _MOST_ARRANGEMENTS:
        ties = sum(count**3 - count for count in Counter(ranks).values())
        variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
        # Ranks are doubled, so a sum is two steps from the next: half a step of continuity is one here.
        return erfc(max(abs(seen - middle) - 1, 0) / 2 / sqrt(variance) / sqrt(2)) if variance else 1.0
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter[int]() for _ in range(n))]
    for rank in ranks:
        for size in range(n, 0, -1):
            for total, count in ways[size - 1].items():
                ways[size][total + rank] += count
    far = sum(count for total, count in ways[n].items() if abs(total - middle) >= abs(seen - middle))
    return far / comb(n + m, n)


def least_p(n: int, m: int) -> float:
    """The smallest p that so many values can give: with it above a threshold, no difference can be shown."""
    return min(1.0, 2 / comb(n + m, n))


def holm(values: Sequence[float]) -> tuple[float, ...]:
    """Each p as it counts among all of these that were tried at once (Holm 1979)."""
    adjusted = [0.0] * len(values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        worst = max(worst, min(1.0, values[index] * (len(values) - rank)))
        adjusted[index] = worst
    return tuple(adjusted)


def _double_ranks(values: Sequence[float]) -> list[int]:
    """Twice the mid-rank of each value, which is whole also between ties."""
    below = {value: sum(other < value for other in values) for value in set(values)}
    same = Counter(values)
    return [2 * below[value] + same[value] + 1 for value in values]
