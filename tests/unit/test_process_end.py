"""What is told of a process that ended before it was ready, and where its threads run."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from qemu_running import ended

from nvlane.apply.process import spawn
from nvlane.apply.process_end import explain_end, pin_threads
from nvlane.model.errors import HostError, WireError
from nvlane.wire.lines import PeerClosed


@pytest.mark.parametrize(
    ("program", "status"),
    [(["false"], "exit status 1"), (["sh", "-c", "kill -SEGV $$"], "killed by SIGSEGV")],
)
def test_status_and_last_words(program: list[str], status: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 10_000 + "\nthe last words\n")
    pid = spawn(program, log=log)
    error = explain_end(["qemu", "a b"], pid, str(log), PeerClosed("the connection was closed"))
    assert error.status == status
    assert error.last_words.endswith("the last words\n")
    assert len(error.last_words) < 5000
    assert "$ qemu 'a b'" in error.message
    assert str(log) in error.remedy
    # The status is still there for the one who waits for the process.
    assert ended(pid) != 0


def test_one_that_runs_on_is_told_by_what_was_missed(tmp_path: Path) -> None:
    pid = spawn(["sleep", "60"], log=tmp_path / "log")
    error = explain_end(["qemu"], pid, str(tmp_path / "none"), WireError("no answer within 1 s", remedy="wait"))
    assert (error.status, error.last_words) == ("no answer within 1 s", "")
    os.kill(pid, signal.SIGKILL)
    assert ended(pid) == -signal.SIGKILL
    # Nobody's child any more: no status, and no wait either.
    assert explain_end(["qemu"], pid, "/nowhere", PeerClosed("gone")).status == "gone"


def test_threads_go_where_they_are_told(tmp_path: Path) -> None:
    cpu = max(os.sched_getaffinity(0))
    pid = spawn(["sleep", "60"], log=tmp_path / "log")
    pin_threads(pid, frozenset())
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)
    pin_threads(pid, frozenset({cpu}))
    assert os.sched_getaffinity(pid) == {cpu}
    with pytest.raises(HostError, match="processors 8000-8001"):
        pin_threads(pid, frozenset({8000, 8001}))
    os.kill(pid, signal.SIGKILL)
    ended(pid)
