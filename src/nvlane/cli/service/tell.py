"""What a use case tells while it works. The verbs decide how it looks."""

from __future__ import annotations

from typing import Protocol

from nvlane.apply.progress import Progress
from nvlane.model.claim import Evidence
from nvlane.plan.plan import Plan


class Tell(Progress, Protocol):
    """The steps, as `Progress` has them, and beside them phases, notes of a plan, and evidence."""

    def phase(self, words: str) -> None: ...
    def notes(self, plan: Plan) -> None: ...
    def evidence(self, piece: Evidence, lane: str) -> None: ...


class Silent:
    """A Tell for steps that are part of something else, which tells of itself."""

    def begins(self, index: int, total: int, text: str) -> None: ...
    def ends(self, index: int, total: int, text: str, why: str) -> None: ...
    def phase(self, words: str) -> None: ...
    def notes(self, plan: Plan) -> None: ...
    def evidence(self, piece: Evidence, lane: str) -> None: ...
