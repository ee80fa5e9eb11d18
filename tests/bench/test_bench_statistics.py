"""The statistics against what counting every case gives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvlane.bench import statistics
from nvlane.bench.statistics import _medians, holm, least_p, mann_whitney, ratio

VALUES = st.lists(st.integers(1, 6).map(float), min_size=1, max_size=5)


def counted_p(first: Sequence[float], second: Sequence[float]) -> float:
    """The two-sided p by trying every way to share the values out, by the sum of mid-ranks."""
    every = [*first, *second]
    ranks = [sum(o < v for o in every) + (sum(o == v for o in every) + 1) / 2 for v in every]
    middle = len(first) * (len(every) + 1) / 2
    seen = abs(sum(ranks[: len(first)]) - middle)
    sums = [abs(sum(chosen) - middle) for chosen in combinations(ranks, len(first))]
    return sum(other >= seen - 1e-9 for other in sums) / len(sums)


@settings(deadline=None)
@given(first=VALUES, second=VALUES)
def test_rank_test_is_exact_with_and_without_ties(first: list[float], second: list[float]) -> None:
    assert mann_whitney(first, second) == pytest.approx(counted_p(first, second))
    assert mann_whitney(first, second) == pytest.approx(mann_whitney(second, first))


def test_values_of_the_tables() -> None:
    """Critical values of Mann and Whitney (1947): the least p for 3 and 3, 4 and 4, 5 and 5 values."""
    for n, p in ((3, 0.1), (4, 2 / 70), (5, 2 / 252)):
        low, high = list(map(float, range(n))), list(map(float, range(10, 10 + n)))
        assert mann_whitney(low, high) == pytest.approx(p) == least_p(n, n)
    assert mann_whitney([1.0, 2.0], [1.0, 2.0]) == 1.0
    assert mann_whitney([], [1.0]) == 1.0


def test_many_values_are_tested_by_the_normal_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both can be had, it is near the exact test; and it says the right thing of many values."""
    first = [float(n) for n in range(12)]
    exact = [mann_whitney(first, [value + shift for value in first]) for shift in (0.5, 3.0, 6.0)]
    monkeypatch.setattr(statistics, "_MOST_ARRANGEMENTS", 1)
    normal = [mann_whitney(first, [value + shift for value in first]) for shift in (0.5, 3.0, 6.0)]
    assert normal == pytest.approx(exact, abs=0.01)
    assert mann_whitney([1.0] * 9, [1.0] * 9) == 1.0


@settings(deadline=None)
@given(values=VALUES)
def test_medians_of_all_resamples(values: list[float]) -> None:
    counted: dict[float, float] = {}
    for drawn in product(values, repeat=len(values)):
        counted[median(drawn)] = counted.get(median(drawn), 0.0) + len(values) ** -len(values)
    found = _medians(tuple(values))
    assert {value: found.get(value, 0.0) for value in counted} == pytest.approx(counted)
    assert sum(found.values()) == pytest.approx(1.0)


def test_ratio_has_the_value_inside_its_interval() -> None:
    seen = ratio([90.0, 100.0, 95.0, 98.0, 102.0], [200.0, 190.0, 205.0, 199.0, 201.0])
    assert seen.value == 98 / 200
    assert 0.44 < seen.low < seen.value < seen.high < 0.55


def test_ratio_of_a_lane_with_itself_and_of_single_rounds() -> None:
    same = ratio([5.0, 6.0, 7.0], [5.0, 6.0, 7.0])
    assert same.low < 1 < same.high and same.value == 1
    single = ratio([5.0], [10.0])
    assert (single.low, single.value, single.high) == (0.5, 0.5, 0.5)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert holm([0.9, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()
