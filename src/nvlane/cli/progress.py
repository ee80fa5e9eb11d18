"""How progress looks: a line for each thing that is done, and on a terminal a spinner for what takes long."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from nvlane.cli.output import Output, on_terminal
from nvlane.model.claim import Evidence
from nvlane.plan.plan import Plan

if TYPE_CHECKING:
    from rich.status import Status

#: Marks that say it without colour.
DONE, OTHER = "✓", "✗"


class Lines:
    """Implements `service.tell.Tell`. A context, for the spinner has to be taken off the terminal at the end."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._status: Status | None = None

    def __enter__(self) -> Self:
        if on_terminal() and self._output.verbose > 0:
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("")
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def begins(self, index: int, total: int, text: str) -> None:
        self.spin(f"{text} ({index + 1} of {total})")

    def ends(self, index: int, total: int, text: str, why: str) -> None:  # noqa: ARG002 - Progress names them
        self._say(f"  {DONE} {text}" if not why else f"  - {text}: {why}")

    def phase(self, words: str) -> None:
        if self._status is None:
            self._output.say(f"  … {words}")
        self.spin(words)

    def notes(self, plan: Plan) -> None:
        for note in plan.notes:
            self._say(f"  note: {note.text}")

    def evidence(self, piece: Evidence, lane: str) -> None:
        if piece.ok:
            self._say(f"  {DONE} {lane}: {piece.claim}: {short(piece.found)}")
        else:
            words = f"expected {short(piece.expected)}, found {short(piece.found)}"
            self._say(f"  {OTHER} {lane}: {piece.claim}: {words}", always=True)

    def _say(self, words: str, *, always: bool = False) -> None:
        if self._status is not None:
            # Through the spinner's own console, which takes its line away first.
            self._status.console.print(words, markup=False, soft_wrap=True)
        elif always:
            self._output.warn(words)
        else:
            self._output.say(words)

    def spin(self, words: str) -> None:
        """What is being done now; shown on a terminal only."""
        if self._status is not None:
            from rich.markup import escape

            self._status.update(escape(words))


def short(text: str) -> str:
    """A value in at most one line: of a long digest the first digits tell it apart."""
    line = text.split("\n", 1)[0]
    return line if len(line) <= 64 and line == text else f"{line[:24]}…"
