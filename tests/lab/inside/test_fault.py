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
from fault_lanes import HOST, LANES, WORK, run_name, runs, steps_of

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
