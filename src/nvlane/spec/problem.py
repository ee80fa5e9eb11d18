"""What is wrong with a spec: a place, a sentence, a remedy. The reader adds file and line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`place` is a key of the spec ('lane[1].drive')."""

    place: str
    message: str
    remedy: str = ""


Problems = Iterator[Problem]
