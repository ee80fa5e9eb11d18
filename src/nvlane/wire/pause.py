"""The pace of something that is asked again and again."""

from __future__ import annotations

import select


def pause(seconds: float) -> None:
    """Nothing, for so long: the time from one look at a peer's counters to the next."""
    select.select((), (), (), seconds)
