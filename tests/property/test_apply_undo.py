"""Undo is the inverse of apply, wherever either of them is cut short."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_runs import DRIVES, Killed, Runs, StandIn, launchers, make_host, step_lists

from nvlane.apply.journal import JOURNAL, Journal
from nvlane.apply.memory import MemoryHost
from nvlane.apply.store import Store
from nvlane.model.errors import NvlaneError
from nvlane.plan.step import Step

pytestmark = pytest.mark.filterwarnings("error")
_EXAMPLES = settings(max_examples=40, deadline=None)


class World:
    """A host, and the store of its runs in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.host = make_host()
        self.stand_in = StandIn(self.host)
        self.store = Store(directory / "state", directory / "runtime")
        self.runs = Runs(self.store, self.host, launchers(self.stand_in))
        self.before = self.host.state()

    def restore(self) -> None:
        """What `nvlane restore` does, in a new process."""
        self.host.before_effect = lambda _: None
        for name in self.store.names():
            report = self.runs.end(name)
            assert report.text() == ""

    def check(self) -> None:
        """The host is as it was, and nothing of nvlane is left."""
        assert changes(self.before, self.host.state()) == {}
        assert self.store.names() == ()
        assert not self.store.state.exists()
        assert not self.store.runtime.exists()


def changes(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    return {
        path: (before.get(path), after.get(path))
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path)
    }


@contextlib.contextmanager
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory() as directory:
        yield World(Path(directory))


@contextlib.contextmanager
def killed_at(count: int, seen: list[int]) -> Iterator[Callable[[object], None]]:
    """A hook that stands for SIGKILL at its `count`-th call; `seen` counts the calls."""

    def hook(_: object) -> None:
        seen[0] += 1
        if seen[0] == count:
            raise Killed

    yield hook


@given(steps=step_lists())
@_EXAMPLES
def test_apply_then_undo_gives_the_same_host(steps: tuple[Step, ...]) -> None:
    with world() as w:
        w.runs.begin("vm", steps)
        assert not steps or w.store.names() == ("vm",)
        if w.store.names():
            w.restore()
        w.check()


@given(steps=step_lists(), data=st.data())
@_EXAMPLES
def test_killed_before_any_effect_of_apply(steps: tuple[Step, ...], data: st.DataObject) -> None:
    with world() as w:
        seen = [0]
        with contextlib.suppress(Killed), killed_at(data.draw(st.integers(1, 40)), seen) as w.host.before_effect:
            w.runs.begin("vm", steps)
        w.restore()
        w.check()


@given(steps=step_lists(), data=st.data())
@_EXAMPLES
def test_killed_after_any_record_and_again_in_the_undo(steps: tuple[Step, ...], data: st.DataObject) -> None:
    with world() as w, pytest.MonkeyPatch.context() as patch:
        for action in (lambda: w.runs.begin("vm", steps), lambda: w.runs.end("vm"), lambda: w.runs.end("vm")):
            with killed_at(data.draw(st.integers(1, 30)), [0]) as hook:
                patch.setattr("nvlane.apply.journal._die_if_asked", hook)
                try:
                    with contextlib.suppress(Killed):
                        action()
                except NvlaneError:
                    assert w.store.names() == ()
        patch.undo()
        w.restore()
        w.check()


@given(steps=step_lists(), data=st.data())
@_EXAMPLES
def test_killed_in_the_middle_of_an_undo(steps: tuple[Step, ...], data: st.DataObject) -> None:
    with world() as w:
        w.runs.begin("vm", steps)
        for _ in range(2):
            if not w.store.names():
                break
            with contextlib.suppress(Killed), killed_at(data.draw(st.integers(1, 30)), [0]) as w.host.before_effect:
                w.runs.end("vm")
        w.restore()
        w.check()


@given(steps=step_lists(), cut=st.integers(1, 400), data=st.data())
@_EXAMPLES
def test_a_journal_cut_in_the_middle_of_its_last_record(steps: tuple[Step, ...], cut: int, data: st.DataObject) -> None:
    """A record that is torn was never on disk: what it announces has not begun, so the host is that of the kill."""
    with world() as w, pytest.MonkeyPatch.context() as patch:
        append = Journal.append
        count = [data.draw(st.integers(1, 30))]

        def torn(self: Journal, record: object) -> None:
            count[0] -= 1
            if count[0] == 0:
                path = self.directory / JOURNAL
                size = path.stat().st_size
                append(self, record)  # type: ignore[arg-type]
                with path.open("r+b") as file:
                    file.truncate(max(size + 1, path.stat().st_size - cut))
                raise Killed
            append(self, record)  # type: ignore[arg-type]

        patch.setattr(Journal, "append", torn)
        with contextlib.suppress(Killed):
            w.runs.begin("vm", steps)
        patch.undo()
        w.restore()
        w.check()


@given(steps=step_lists(), data=st.data())
@_EXAMPLES
def test_a_reboot_between_kill_and_restore(steps: tuple[Step, ...], data: st.DataObject) -> None:
    with world() as w:
        rebooted = make_host()
        rebooted.reboot()
        with contextlib.suppress(Killed), killed_at(data.draw(st.integers(1, 60)), [0]) as w.host.before_effect:
            w.runs.begin("vm", steps)
        w.host.before_effect = lambda _: None
        w.host.reboot()
        w.restore()
        assert changes(rebooted.state(), w.host.state()) == {}
        assert w.store.names() == ()


@given(steps=step_lists(), which=st.integers(0, 40))
@_EXAMPLES
def test_a_step_that_fails_is_undone_at_once(steps: tuple[Step, ...], which: int) -> None:
    with world() as w:
        seen = [0]

        def fail(_: str) -> None:
            seen[0] += 1
            if seen[0] == which:
                raise OSError(5, "Input/output error")

        w.host.before_effect = fail
        try:
            w.runs.begin("vm", steps)
        except NvlaneError:
            w.host.before_effect = lambda _: None
        w.restore()
        w.check()


@given(steps=step_lists())
@_EXAMPLES
def test_a_drive_that_was_pulled_is_named(steps: tuple[Step, ...]) -> None:
    with world() as w:
        w.runs.begin("vm", steps)
        taken = [step for step in steps if getattr(step, "address", None) == DRIVES[0]]
        w.host.pull(DRIVES[0])
        if not w.store.names():
            return
        report = w.runs.end("vm")
        assert [step.text for step in report.failed] == [
            step.text for step in report.steps if taken and str(DRIVES[0]) in step.text
        ]
        assert all("SERIAL0 is gone" in step.outcome.why for step in report.failed)
        assert w.store.has("vm") == bool(taken)


def test_the_standard_host_survives_a_memory_reboot() -> None:
    host = MemoryHost()
    before = host.state()
    host.reboot()
    assert host.state() == before
