"""Runs as the verbs make them, without their words: begin one, add to it, end it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Any

from nvlane.apply.executor import apply
from nvlane.apply.journal import Journal
from nvlane.apply.operations.table import Launchers, operations
from nvlane.apply.progress import Progress
from nvlane.apply.store import Store
from nvlane.apply.undo import UndoReport, plan_undo, undo
from nvlane.model.host import Host
from nvlane.plan.step import Inverse, Step


class Runs:
    """The runs of one store on one host."""

    def __init__(self, store: Store, host: Host, launchers: Launchers) -> None:
        self.store = store
        self._host = host
        self._operations = operations(launchers)

    def begin(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        spec: str = "",
        notes: dict[str, Any] | None = None,
        progress: Progress | None = None,
        keep: bool = False,
    ) -> tuple[int, ...]:
        """Begin the run `name` and do its steps; the numbers that they have in its journal.

        When a step fails everything is undone and the run forgotten (unless `keep`), and its error raised.
        """
        with self.store.create(name, self._host, spec=spec) as journal:
            for key, value in (notes or {}).items():
                journal.note(key, value)
            return self._apply(journal, steps, progress, keep)

    def extend(
        self,
        name: str,
        steps: Sequence[Step],
        *,
        notes: dict[str, Any] | None = None,
        progress: Progress | None = None,
        keep: bool = False,
    ) -> tuple[int, ...]:
        """Do more steps in a run that is there; as `begin`, but a failure undoes only these."""
        with self.store.open(name) as journal:
            numbers = self._apply(journal, steps, progress, keep)
            for key, value in (notes or {}).items():
                journal.note(key, value)
            return numbers

    def end(self, name: str, *, only: Collection[int] | None = None, progress: Progress | None = None) -> UndoReport:
        """Undo a run, or `only` the steps with these numbers. A run of which everything is settled is forgotten."""
        with self.store.open(name) as journal:
            report = undo(
                journal,
                host=self._host,
                operations=self._operations,
                progress=progress,
                only=only,
                lock=self.store.host_lock,
            )
            self._forget_settled(journal)
            return report

    def preview(self, name: str) -> tuple[Inverse, ...]:
        """What `end` would do, in order."""
        with self.store.open(name) as journal:
            return tuple(inverse for _, inverse in plan_undo(journal, self._operations))

    def _apply(self, journal: Journal, steps: Sequence[Step], progress: Progress | None, keep: bool) -> tuple[int, ...]:
        with contextlib.ExitStack() as on_failure:
            if not keep:
                on_failure.callback(self._forget_settled, journal)
            numbers = apply(
                steps,
                host=self._host,
                journal=journal,
                operations=self._operations,
                progress=progress,
                keep=keep,
                lock=self.store.host_lock,
            )
            on_failure.pop_all()
            return numbers

    def _forget_settled(self, journal: Journal) -> None:
        if not plan_undo(journal, self._operations):
            self.store.remove(journal)
