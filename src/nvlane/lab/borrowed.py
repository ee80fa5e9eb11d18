"""Kernel modules that a part of the lab brings along, and that go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nvlane.apply import process
from nvlane.lab.waiting import until


@contextmanager
def modules_as_before(names: Sequence[str]) -> Iterator[None]:
    """Those of these modules that come meanwhile are unloaded, in this order: the users of others first."""
    before = frozenset(loaded())
    try:
        yield
    finally:
        for name in names:
            if name not in before and name in loaded():
                until(lambda name=name: not loaded().get(name, 0), f"{name} is idle", timeout=20.0)  # type: ignore[misc]
                process.run(["rmmod", name])


def loaded() -> dict[str, int]:
    """Loaded modules and how often each is used."""
    lines = (line.split() for line in Path("/proc/modules").read_text().splitlines())
    return {fields[0]: int(fields[2]) for fields in lines}
