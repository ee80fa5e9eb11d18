"""What a histogram of fio says: percentiles, and the distribution as points of a curve.

A value of the histogram is the middle of one of fio's bins, each 1/64 of a power of two wide (stat.c of fio,
plat_idx_to_val): what is read from it is at most 1.6 % beside the truth.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Final

#: The percentiles that are shown, as parts of one hundred.
SHOWN: Final = (50.0, 90.0, 99.0, 99.9)


def percentile(histogram: Mapping[int, int], part: float) -> float:
    """The time, in nanoseconds, within which `part` of a hundred I/Os were done. 0 for an empty histogram."""
    total = sum(histogram.values())
    wanted = total * part / 100
    done = 0
    for time, count in sorted(histogram.items()):
        done += count
        if done >= wanted:
            return float(time)
    return 0.0


def distribution(histogram: Mapping[int, int]) -> tuple[tuple[float, float], ...]:
    """(nanoseconds, part of all I/Os that were done by then), rising to 1."""
    times = sorted(histogram)
    total = sum(histogram.values())
    sums = accumulate(histogram[time] for time in times)
    return tuple((float(time), done / total) for time, done in zip(times, sums, strict=True))
