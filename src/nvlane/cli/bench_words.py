"""A measurement, and the comparison of two, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from nvlane.bench.compare import Comparison
from nvlane.bench.result import Result
from nvlane.bench.statistics import Interval
from nvlane.bench.summary import Order, Row, orders, rows
from nvlane.cli.output import table


def result_words(result: Result) -> str:
    """Every job with its lanes, and what of the expected order holds; with a caveat, no conclusion."""
    seen = rows(result)
    parts = [table(_HEADINGS, [_cells(row) for row in seen])]
    if result.where.caveats:
        parts.append(caveat_words(result.where.caveats))
    else:
        parts += [order_words(order) for order in orders(result)]
    return "\n".join(parts)


_HEADINGS = ("job", "lane", "IOPS", "MiB/s", "p50 µs", "p99 µs", "p99.9 µs", "host CPU µs/IO", "of the fastest")


def _cells(row: Row) -> list[str]:
    return [
        row.job,
        row.lane,
        f"{row.iops:,.0f}",
        f"{row.bytes_a_second / (1 << 20):,.1f}",
        *(f"{row.latency[part]:,.0f}" for part in ("50", "99", "99.9")),
        f"{row.cost.overhead:,.1f}",
        interval_words(row.to_fastest),
    ]


def interval_words(interval: Interval) -> str:
    """'0.82 (0.80 to 0.85)'; of a single value there is no interval."""
    if interval.low == interval.high:
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def caveat_words(caveats: Iterable[str]) -> str:
    return f"No conclusion about speed: {'; '.join(dict.fromkeys(caveats))}."


def order_words(order: Order) -> str:
    verdict = {True: "holds", False: "does not hold", None: "is left open by these rounds"}[order.holds]
    names = " > ".join([order.pairs[0][0], *(second for _, second, _ in order.pairs)])
    return f"{order.job}: the order {names} {verdict}"


def comparison_words(found: Comparison, caveats: Iterable[str]) -> str:
    lines = [
        [
            row.job,
            row.lane,
            f"{row.before:,.0f}",
            f"{row.after:,.0f}",
            interval_words(row.change),
            f"{row.p:.3f}",
            row.verdict,
        ]
        for row in found.rows
    ]
    parts = [table(("job", "lane", "IOPS of A", "IOPS of B", "B/A", "p", "verdict"), lines)]
    if found.unmatched:
        parts.append(f"only in one of the two: {', '.join(found.unmatched)}")
    parts += [f"unlike: {words}" for words in found.unlike]
    caveats = tuple(caveats)
    return "\n".join([*parts, *([caveat_words(caveats)] if caveats else [])])
