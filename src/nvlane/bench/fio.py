"""fio's answer (`--output-format=json+`): what one run of a job did.

Read against fio 3.33 and 3.39: `jobs` has one entry with `--group_reporting`; each of `read` and `write` has
`total_ios`, `io_bytes`, `runtime` (milliseconds) and `clat_ns` with `bins`, a histogram of nanoseconds to counts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nvlane.model.errors import WireError


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run: I/Os and bytes in `seconds`, and how many I/Os took how long (`latency`: nanoseconds to count)."""

    ios: int
    bytes: int
    seconds: float
    latency: Mapping[int, int]

    @property
    def iops(self) -> float:
        return self.ios / self.seconds


def read_outcome(text: str, job: str) -> Outcome:
    """The outcome in fio's standard output, reads and writes together.

    Raises WireError when it is not understood, when an I/O failed, or when nothing was done."""
    try:
        # fio writes warnings before the JSON, on the same stream.
        value = json.loads(text[text.index("{") :])
        (entry,) = value["jobs"]
        error = int(entry["error"])
        parts = [part for part in (_direction(entry[name]) for name in ("read", "write")) if part.ios]
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise WireError(f"fio's answer to {job} is not understood ({problem!r}): {text[:200]!r}") from problem
    if error:
        raise WireError(f"{job}: fio met an I/O error (errno {error})", remedy="read the guest's kernel log")
    if not parts:
        raise WireError(f"{job}: fio did no I/O at all", remedy="give it more time: --runtime")
    return Outcome(
        ios=sum(part.ios for part in parts),
        bytes=sum(part.bytes for part in parts),
        seconds=max(part.seconds for part in parts),
        latency=merged([part.latency for part in parts]),
    )


def merged(histograms: list[Mapping[int, int]]) -> dict[int, int]:
    """Several histograms as one, in the order of time."""
    total: Counter[int] = Counter()
    for histogram in histograms:
        total.update(histogram)
    return dict(sorted(total.items()))


def _direction(part: Mapping[str, Any]) -> Outcome:
    bins = part["clat_ns"].get("bins", {})
    return Outcome(
        ios=int(part["total_ios"]),
        bytes=int(part["io_bytes"]),
        seconds=max(float(part["runtime"]), 1.0) / 1000,
        latency={int(time): int(count) for time, count in bins.items() if int(count)},
    )
