"""How long each phase of a use case took."""

from __future__ import annotations

import time
from collections.abc import Sequence

from nvlane.apply.progress import Progress
from nvlane.plan.step import StartMachine, StartTarget, Step


class Clock:
    """Laps, in seconds, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """The time since the last lap was spent on `name`."""
        now = time.monotonic()
        self.seconds[name] = round(self.seconds.get(name, 0.0) + now - self._last, 3)
        self._last = now


class StepClock:
    """Passes progress on, and books the time of each step: 'start' for QEMU and targets, which is theirs and not ours,
    'apply' for everything else."""

    def __init__(self, progress: Progress, steps: Sequence[Step], clock: Clock) -> None:
        self._progress = progress
        self._names = ["start" if isinstance(step, StartMachine | StartTarget) else "apply" for step in steps]
        self._clock = clock

    def begins(self, index: int, total: int, text: str) -> None:
        self._progress.begins(index, total, text)

    def ends(self, index: int, total: int, text: str, why: str) -> None:
        # The undo of a failed run has steps of its own.
        self._clock.lap(self._names[index] if total == len(self._names) else "undo")
        self._progress.ends(index, total, text, why)
