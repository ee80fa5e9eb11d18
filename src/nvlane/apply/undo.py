"""The way back: the journal becomes a list of inverses, which run through a loop like the one that did the steps.

It is right wherever the tool was killed: between a step's intent and its deed, in the middle of the deed, before the
deed was written down, and at the same places of an earlier undo. What could not be put back stays in the journal, and
the next undo tries it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from nvlane.apply.journal import Entry, Journal
from nvlane.apply.operations.operation import Fate, Outcome, Reversal, failed
from nvlane.apply.operations.processes import boot_id
from nvlane.apply.operations.table import Operations
from nvlane.apply.progress import Progress, Silent
from nvlane.apply.record import End, Failed, Undo, Undone
from nvlane.apply.store import modules_of_others, shared_of_others
from nvlane.model.errors import Bug, NotRestored, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.domain_step import DefineDomain
from nvlane.plan.step import Inverse


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoneStep:
    """One inverse and its fate."""

    n: int
    text: str
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoReport:
    """All inverses of one undo in the order in which they ran."""

    steps: tuple[UndoneStep, ...]

    @property
    def failed(self) -> tuple[UndoneStep, ...]:
        return tuple(step for step in self.steps if step.outcome.fate is Fate.FAILED)

    @property
    def kept(self) -> tuple[UndoneStep, ...]:
        return tuple(step for step in self.steps if step.outcome.fate is Fate.KEPT)

    def text(self) -> str:
        """What is not as it was, a line each; '' when everything is."""
        lines = []
        for step in (*self.failed, *self.kept):
            lines.append(f"{step.outcome.fate}: {step.text}: {step.outcome.why}")
            if step.outcome.remedy:
                lines.append(f"  remedy: {step.outcome.remedy}")
        return "\n".join(lines)

    def raise_for_failed(self) -> None:
        """Raises NotRestored when something could not be put back."""
        if self.failed:
            raise NotRestored(self.text(), remedy="then run nvlane restore")


def plan_undo(journal: Journal, operations: Operations) -> tuple[tuple[Entry, Inverse], ...]:
    """What an undo would do, in order: the last step first."""
    planned = []
    for entry in reversed(journal.entries()):
        if entry.undone:
            continue
        inverse = _inverse(entry, operations)
        if inverse is not None:
            planned.append((entry, inverse))
    return tuple(planned)


def undo(
    journal: Journal,
    *,
    host: Host,
    operations: Operations,
    progress: Progress | None = None,
    only: Collection[int] | None = None,
    lock: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
) -> UndoReport:
    """Undo all steps of a run that are not undone yet, or `only` those with these numbers.

    Raises nothing for what fails: the report names it. When everything is settled the journal ends with End.
    """
    progress = progress or Silent()
    operations = operations.beside(
        lambda: modules_of_others(journal.directory),
        lambda: shared_of_others(journal.directory),
        lambda lane: _additions_beside(journal, lane),
    )
    planned = [(entry, inverse) for entry, inverse in plan_undo(journal, operations) if only is None or entry.n in only]
    done: list[UndoneStep] = []
    for index, (entry, inverse) in enumerate(planned):
        progress.begins(index, len(planned), inverse.describe())
        with lock():
            outcome = _one(entry, inverse, host, journal, operations)
            # What is kept because something else could not be put back is not settled: a module in use by a drive.
            unsettled = outcome.fate is Fate.KEPT and any(step.outcome.fate is Fate.FAILED for step in done)
            if outcome.fate is Fate.FAILED:
                journal.append(Failed(n=entry.n, error=outcome.why))
            elif not unsettled:
                journal.append(Undone(n=entry.n, kept=outcome.why if outcome.fate is Fate.KEPT else ""))
        done.append(UndoneStep(n=entry.n, text=inverse.describe(), outcome=outcome))
        progress.ends(index, len(planned), inverse.describe(), "" if outcome.fate is Fate.PUT_BACK else outcome.why)
    if only is None and not plan_undo(journal, operations):
        journal.append(End())
    return UndoReport(steps=tuple(done))


def _additions_beside(journal: Journal, lane: str) -> dict[str, Mapping[str, object]]:
    """What the lanes other than this one still have of a domain's definition."""
    return {
        entry.step.lane: entry.step.additions
        for entry in journal.entries()
        if isinstance(entry.step, DefineDomain) and not entry.undone and entry.step.lane != lane
    }


def _inverse(entry: Entry, operations: Operations) -> Inverse | None:
    if entry.tried is not None:
        return entry.tried[0]
    operation = operations.forward.get(type(entry.step))
    if operation is None:
        raise Bug(f"no operation does {type(entry.step).__name__}")
    return operation.inverse(entry.step, entry.found, entry.result)


def _one(entry: Entry, inverse: Inverse, host: Host, journal: Journal, operations: Operations) -> Outcome:
    reversal: Reversal[Any] | None = operations.back.get(type(inverse))
    if reversal is None:
        raise Bug(f"no reversal does {type(inverse).__name__}")
    try:
        booted_since = entry.boot_id != boot_id(host)
        if booted_since and inverse.VOLATILE:
            return reversal.void(host, inverse)
        found = reversal.observe(host, inverse)
        if entry.tried is not None:
            inverse = reversal.resume(inverse, entry.tried[1], found)
        elif not entry.done:
            inverse = reversal.resume(inverse, None, found)
        journal.append(Undo(n=entry.n, inverse=inverse, found=found))
        return reversal.perform(host, inverse, found)
    except NvlaneError as error:
        return failed(error.message, remedy=error.remedy)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        return failed(f"{error.strerror}{place}")
