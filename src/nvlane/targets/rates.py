"""What a target does each second, out of two looks at its counters. Pure.

Counters and their names are those of SPDK's framework_get_reactors and bdev_get_iostat; a tick is 1/tick_rate s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ReactorRate:
    """`busy`: the part of the time, 0 to 1, in which it found work; a sleeping reactor is idle."""

    core: int
    busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BdevRate:
    """Operations and bytes a second, and the mean latency of what was completed in seconds (0: nothing was)."""

    name: str
    read_ops: float
    write_ops: float
    read_bytes: float
    write_bytes: float
    read_latency: float
    write_latency: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """One look: `seconds` is the time since the one before."""

    seconds: float
    reactors: tuple[ReactorRate, ...]
    bdevs: tuple[BdevRate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """The answers to framework_get_reactors and bdev_get_iostat."""

    reactors: Mapping[str, Any]
    bdevs: Mapping[str, Any]


def rates(before: Counters, after: Counters) -> Rates:
    """What came to pass between two looks. What was not there before counts from nothing."""
    ticks = max(1, after.bdevs["ticks"] - before.bdevs["ticks"])
    rate = after.bdevs["tick_rate"]
    return Rates(
        seconds=ticks / rate,
        reactors=tuple(_reactors(before.reactors["reactors"], after.reactors["reactors"])),
        bdevs=tuple(_bdevs(before.bdevs["bdevs"], after.bdevs["bdevs"], ticks / rate, rate)),
    )


def _reactors(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[ReactorRate]:
    was = {reactor["lcore"]: reactor for reactor in before}
    found = []
    for reactor in after:
        old = was.get(reactor["lcore"], {"busy": 0, "idle": 0})
        busy, idle = reactor["busy"] - old["busy"], reactor["idle"] - old["idle"]
        found.append(ReactorRate(core=reactor["lcore"], busy=busy / max(1, busy + idle)))
    return found


def _bdevs(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], seconds: float, tick_rate: int
) -> list[BdevRate]:
    was = {bdev["name"]: bdev for bdev in before}
    found = []
    for bdev in after:
        old = was.get(bdev["name"], {})
        more = {key: value - old.get(key, 0) for key, value in bdev.items() if isinstance(value, int)}
        # Counters that were reset in between count from nothing.
        more = {key: value if value >= 0 else bdev[key] for key, value in more.items()}
        reads, writes = more["num_read_ops"], more["num_write_ops"]
        found.append(
            BdevRate(
                name=bdev["name"],
                read_ops=reads / seconds,
                write_ops=writes / seconds,
                read_bytes=more["bytes_read"] / seconds,
                write_bytes=more["bytes_written"] / seconds,
                read_latency=more["read_latency_ticks"] / tick_rate / reads if reads else 0.0,
                write_latency=more["write_latency_ticks"] / tick_rate / writes if writes else 0.0,
            )
        )
    return found
