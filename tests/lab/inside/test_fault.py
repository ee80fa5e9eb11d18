"""The tool is killed after every single record of its journal, for every lane; restore gives the same host back.

Runs inside the lab, as root:  nvlane lab run python3 -m pytest /nvlane/tests/lab/inside/test_fault.py

Each kill is a real SIGKILL in a process of its own (a fork of this one), by the journal's own hook; the restore then
works from nothing but the journal and the host.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_lanes import HOST, LANES, WORK, run_name, runs, spec_text, steps_of

from nvlane.apply import process
from nvlane.apply.journal import DIE_AFTER, DIE_TORN, JOURNAL, read_records
from nvlane.apply.linux import LinuxHost
from nvlane.apply.snapshot import HostSnapshot, differences, host_snapshot

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.environ.get("NVLANE_LAB") != "1", reason="changes the host: in the lab only"),
]


@pytest.fixture(autouse=True)
def work() -> Iterator[None]:
    shutil.rmtree(WORK, ignore_errors=True)
    Path(WORK).mkdir()
    yield
    for name in runs().store.names():  # of a test that failed, so that the next one does not, too
        runs().end(name)
    assert os.listdir(WORK) == []  # noqa: PTH208 - names
    shutil.rmtree(WORK)


def snapshot() -> HostSnapshot:
    store = runs().store
    return host_snapshot(LinuxHost(), str(store.state), str(store.runtime), WORK)


def in_a_process(work: Callable[[], object], **environment: str) -> int:
    """Do `work` in a fork, with these variables; its exit status, negative for the signal that killed it."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(environment)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def restore_and_compare(lane: str, before: HostSnapshot, when: str) -> None:
    if runs().store.has(run_name(lane)):
        report = runs().end(run_name(lane))
        assert report.text() == "", when
    assert differences(before, snapshot()) == (), when


@pytest.mark.parametrize("lane", [HOST, *LANES])
def test_killed_after_every_record(lane: str) -> None:
    name, steps = run_name(lane), steps_of(lane)
    before = snapshot()

    assert in_a_process(lambda: runs().begin(name, steps)) == 0
    written = len(read_records(runs().store.read(name).path / JOURNAL)[0])
    print(f"{lane}: {written} records for {', '.join(type(step).__name__ for step in steps)}")
    assert written > 2 * len(steps)
    undone, inverses = 0, len(runs().preview(name))
    while runs().store.has(name):
        undone += 1
        killed = in_a_process(lambda: runs().end(name), **{DIE_AFTER: str(undone)})
        assert killed in (0, -signal.SIGKILL)
        if killed == 0:
            break
        restore_and_compare(lane, before, f"{lane}: killed after record {undone} of the undo")
        assert in_a_process(lambda: runs().begin(name, steps)) == 0
    restore_and_compare(lane, before, f"{lane}: not killed")
    assert undone == 2 * inverses + 2, "two records for each inverse and one at the end, then nobody was killed"

    for record in range(1, written + 1):
        hook = DIE_TORN if record % 2 else DIE_AFTER
        assert in_a_process(lambda: runs().begin(name, steps), **{hook: str(record)}) == -signal.SIGKILL
        restore_and_compare(lane, before, f"{lane}: {hook}={record} of {written}")


def nvlane(*arguments: str, **environment: str) -> process.Completed:
    return process.run(["nvlane", *arguments], env=environment, check=False)


def test_the_command_line_killed_and_restored(tmp_path: Path) -> None:
    """The verbs themselves: their own notes stand among the records, and a new process finds its way by itself."""
    spec = tmp_path / "vhost-user.toml"
    spec.write_text(spec_text("vhost-user"), encoding="utf-8")
    name, least = run_name("vhost-user"), 2 * len(steps_of("vhost-user"))
    before = snapshot()
    record = 0
    while True:
        record += 4
        up = nvlane("up", "--no-verify", str(spec), **{DIE_AFTER: str(record)})
        if up.returncode == 0:
            break
        assert up.returncode == -signal.SIGKILL, up.stderr
        if record == 4:
            again = nvlane("up", "--no-verify", str(spec))
            assert again.returncode == 3, again.stderr
            assert "left by a crash" in again.stderr
        restored = nvlane("restore")
        assert restored.returncode == 0, restored.stderr
        if runs().store.has(name):
            # Killed when all was done and written down: that machine is up, and `restore` leaves it alone.
            assert nvlane("down", name).returncode == 0
        assert differences(before, snapshot()) == (), f"killed after record {record} of up"
    assert record > least
    killed = nvlane("down", name, **{DIE_AFTER: "4"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    restored = nvlane("restore")
    assert restored.returncode == 0, restored.stderr
    assert differences(before, snapshot()) == ()
