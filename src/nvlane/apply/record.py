"""The records of the journal, in the order in which a run writes them.

::

    Begin  (Intent [Kept] (Done | Failed))*  Note*  (Undo (Undone | Failed))*  End

`n` numbers the steps of a run from 0, over all its verbs: an `attach` goes on where `up` ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from nvlane.apply.operations.found import Found, Result
from nvlane.plan.step import Inverse, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The first record. `spec` is the text of the user's file, `time` seconds since the epoch, for people."""

    TAGGED: ClassVar[bool] = True
    run: str
    boot_id: str
    version: str
    hostname: str
    time: float
    spec: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """About to do step `n`; `found` is the state before. `boot_id` tells a later boot from this one."""

    TAGGED: ClassVar[bool] = True
    n: int
    boot_id: str
    step: Step
    found: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What step `n` has got so far, journaled before the step is done: a process must never be without a record."""

    TAGGED: ClassVar[bool] = True
    n: int
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    TAGGED: ClassVar[bool] = True
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """Step `n`, or its inverse, failed with this message."""

    TAGGED: ClassVar[bool] = True
    n: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """About to do the inverse of step `n`; `found` is the state before that."""

    TAGGED: ClassVar[bool] = True
    n: int
    inverse: Inverse
    found: Found


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """Step `n` is settled; `kept` is '' or why something rightly stays."""

    TAGGED: ClassVar[bool] = True
    n: int
    kept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Anything that the verbs have to remember of this run (a plan, claims, the state of a proof), as JSON."""

    TAGGED: ClassVar[bool] = True
    key: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Everything is undone; the journal may go."""

    TAGGED: ClassVar[bool] = True


Record = Begin | Intent | Kept | Done | Failed | Undo | Undone | Note | End
