"""The two shapes that every change has: an operation goes forward, a reversal goes back.

::

    forward:  observe -> check -> (journal: intent) -> perform -> (journal: done)
    back:     inverse -> observe -> resume -> (journal: undo) -> perform -> (journal: undone)

A reversal must be right from any state that its operation can leave when it is cut short, and after itself was cut
short: it looks at the host, and does what is still to be done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from nvlane.apply.operations.found import Found, Result
from nvlane.model.host import Host
from nvlane.plan.step import Inverse

S_contra = TypeVar("S_contra", contravariant=True)
I_contra = TypeVar("I_contra", contravariant=True)

#: Journals a part of the result as soon as it is known (a process id), before the step is done.
Keep = Callable[[Result], None]


class Fate(StrEnum):
    """What became of one inverse."""

    PUT_BACK = "put back"
    ALREADY = "was already so"
    KEPT = "kept"
    FAILED = "could not be put back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The fate of one inverse and, where it is not simply put back, why; `remedy` is a sentence for a person.

    KEPT is settled: the host is right to keep it (an image that was written to). FAILED stays in the journal, and the
    next restore tries it again.
    """

    fate: Fate
    why: str = ""
    remedy: str = ""


PUT_BACK = Outcome(fate=Fate.PUT_BACK)


def already(why: str) -> Outcome:
    return Outcome(fate=Fate.ALREADY, why=why)


def kept(why: str) -> Outcome:
    return Outcome(fate=Fate.KEPT, why=why)


def failed(why: str, *, remedy: str = "") -> Outcome:
    return Outcome(fate=Fate.FAILED, why=why, remedy=remedy)


class Operation(Protocol[S_contra]):
    """One kind of step. `check` raises Refused or HostError when the world is not what the plan saw; `inverse` is
    pure, and None when the step changed nothing."""

    def observe(self, host: Host, step: S_contra) -> Found: ...
    def check(self, host: Host, step: S_contra, found: Any) -> None: ...
    def perform(self, host: Host, step: S_contra, found: Any, keep: Keep) -> None: ...
    def inverse(self, step: S_contra, found: Any, result: Any) -> Inverse | None: ...


class Reversal(Protocol[I_contra]):
    """One kind of inverse.

    `resume` gives what is left to do when an earlier try, which found `then`, was cut short; `void` is what to say when
    the host has been booted since, for an inverse whose step a reboot undoes.
    """

    def observe(self, host: Host, inverse: I_contra) -> Found: ...
    def resume(self, inverse: Any, then: Any, now: Any) -> Any: ...
    def perform(self, host: Host, inverse: I_contra, found: Any) -> Outcome: ...
    def void(self, host: Host, inverse: I_contra) -> Outcome: ...


class Idempotent:
    """The parts of a reversal whose every try starts by looking: nothing found, nothing to resume."""

    def resume(self, inverse: Any, then: Any, now: Any) -> Any:  # noqa: ARG002
        return inverse

    def void(self, host: Host, inverse: Any) -> Outcome:  # noqa: ARG002
        return already("the host has been booted since, which undid it")
