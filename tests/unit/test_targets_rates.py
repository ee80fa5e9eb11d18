"""What a target does each second, out of two looks."""

from __future__ import annotations

from typing import Any

import pytest

from nvlane.targets.rates import Counters, rates

TICKS = 1_000_000  # a second


def counters(ticks: int, busy: int, **bdevs: dict[str, int]) -> Counters:
    names = (
        "num_read_ops",
        "num_write_ops",
        "bytes_read",
        "bytes_written",
        "read_latency_ticks",
        "write_latency_ticks",
    )
    return Counters(
        reactors={"tick_rate": TICKS, "reactors": [{"lcore": 3, "busy": busy, "idle": ticks - busy}]},
        bdevs={
            "tick_rate": TICKS,
            "ticks": ticks,
            "bdevs": [{"name": name, **dict.fromkeys(names, 0), **values} for name, values in bdevs.items()],
        },
    )


def one(before: Counters, after: Counters) -> Any:
    (bdev,) = rates(before, after).bdevs
    return bdev


def test_operations_bytes_and_latency() -> None:
    before = counters(0, 0, disk={"num_read_ops": 100, "bytes_read": 4096, "read_latency_ticks": 7})
    after = counters(2 * TICKS, TICKS // 2, disk={
        "num_read_ops": 300, "bytes_read": 4096 + 8192, "read_latency_ticks": 7 + 200 * 50, "num_write_ops": 2,
    })  # fmt: skip
    found = rates(before, after)
    assert found.seconds == 2.0
    assert (found.reactors[0].core, found.reactors[0].busy) == (3, 0.25)
    bdev = found.bdevs[0]
    assert (bdev.read_ops, bdev.read_bytes, bdev.write_ops) == (100.0, 4096.0, 1.0)
    assert bdev.read_latency == pytest.approx(50e-6)
    assert bdev.write_latency == 0.0


def test_what_is_new_counts_from_nothing() -> None:
    bdev = one(counters(0, 0), counters(TICKS, 0, disk={"num_read_ops": 5}))
    assert bdev.read_ops == 5.0


def test_counters_that_were_reset_count_from_nothing() -> None:
    before = counters(0, 0, disk={"num_write_ops": 1000, "bytes_written": 1 << 20})
    bdev = one(before, counters(TICKS, 0, disk={"num_write_ops": 10, "bytes_written": 512}))
    assert (bdev.write_ops, bdev.write_bytes) == (10.0, 512.0)


def test_nothing_happened() -> None:
    bdev = one(counters(5, 0, disk={}), counters(5, 0, disk={}))
    assert (bdev.read_ops, bdev.write_latency) == (0.0, 0.0)
