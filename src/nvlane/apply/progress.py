"""What the loop tells while it works, for whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """`total` steps are to come; each begins with its text, and ends with '' or with why it went another way."""

    def begins(self, index: int, total: int, text: str) -> None: ...
    def ends(self, index: int, total: int, text: str, why: str) -> None: ...


class Silent:
    """Shows nothing."""

    def begins(self, index: int, total: int, text: str) -> None: ...
    def ends(self, index: int, total: int, text: str, why: str) -> None: ...
