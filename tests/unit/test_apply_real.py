"""Apply and undo on the machine that runs the tests, with what is harmless there; and killed after every record."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from apply_child import runs, steps

from nvlane.apply.journal import DIE_AFTER, DIE_TORN
from nvlane.apply.linux import LinuxHost
from nvlane.apply.operations.operation import Fate
from nvlane.apply.operations.processes import find_by_token, start_time_of
from nvlane.model.errors import HostError

_CHILD = Path(__file__).with_name("apply_child.py")
#: Records of a whole `begin` of three steps with two results: begin, 3 intents, 2 kept, 3 done. Of an `end`: 3 undo,
#: 3 undone, end.
_BEGIN_RECORDS, _END_RECORDS = 9, 7


def _child(verb: str, base: Path, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, str(_CHILD), verb, str(base)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def _tokens(base: Path) -> list[str]:
    """Arguments of the processes that still have our base directory in their environment or are our server."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                if (
                    b"s.accept()" in (process / "cmdline").read_bytes()
                    and str(base).encode() in (process / "environ").read_bytes()
                ):
                    found.append(process.name)
            except OSError:
                continue
    return found


def test_begin_and_end_leave_nothing(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    assert _child("begin", base, NVLANE_TEST_BASE=str(base)) == 0
    path = base / "runtime/vm/x.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert client.recv(5) == b"hello"
    assert len(_tokens(base)) == 1
    report = runs(base).end("vm")
    assert [step.outcome.fate for step in report.steps] == [Fate.PUT_BACK] * 3
    assert list(base.iterdir()) == []
    assert _tokens(base) == []


@pytest.mark.parametrize("hook", [DIE_AFTER, DIE_TORN])
@pytest.mark.parametrize("record", range(1, _BEGIN_RECORDS + 1))
def test_killed_at_every_record_of_begin(tmp_path: Path, hook: str, record: int) -> None:
    base = tmp_path / "base"
    base.mkdir()
    assert _child("begin", base, NVLANE_TEST_BASE=str(base), **{hook: str(record)}) == -9
    runs(base).end("vm").raise_for_failed()
    assert list(base.iterdir()) == []
    assert _tokens(base) == []


@pytest.mark.parametrize("hook", [DIE_AFTER, DIE_TORN])
@pytest.mark.parametrize("record", range(1, _END_RECORDS + 1))
def test_killed_at_every_record_of_end(tmp_path: Path, hook: str, record: int) -> None:
    base = tmp_path / "base"
    base.mkdir()
    assert _child("begin", base, NVLANE_TEST_BASE=str(base)) == 0
    assert _child("end", base, **{hook: str(record)}) == -9
    runs(base).end("vm").raise_for_failed()
    assert list(base.iterdir()) == []
    assert _tokens(base) == []


def test_these_are_all_the_records_that_there_are(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    assert _child("begin", base, **{DIE_AFTER: str(_BEGIN_RECORDS + 1)}) == 0
    assert _child("end", base, **{DIE_AFTER: str(_END_RECORDS + 1)}) == 0


def test_an_image_that_was_written_to_is_kept(tmp_path: Path) -> None:
    runs(tmp_path).begin("vm", steps(tmp_path)[:2])
    image = tmp_path / "images/deep/a.raw"
    with image.open("r+b") as file:
        file.write(b"precious")
    report = runs(tmp_path).end("vm")
    assert report.failed == ()
    assert [step.outcome.fate for step in report.steps] == [Fate.KEPT, Fate.KEPT]
    assert "has been written to" in report.text()
    assert image.read_bytes().startswith(b"precious")
    assert not (tmp_path / "state").exists()


def test_a_second_nvlane_is_refused_with_the_process_of_the_first(tmp_path: Path) -> None:
    store = runs(tmp_path).store
    with store.create("vm", LinuxHost()) as journal:
        with pytest.raises(HostError, match=rf"process {os.getpid()}"):
            runs(tmp_path).end("vm")
        store.remove(journal)
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_the_same_name_is_refused(tmp_path: Path) -> None:
    runs(tmp_path).begin("vm", steps(tmp_path)[:1])
    with pytest.raises(HostError, match="is up already"):
        runs(tmp_path).begin("vm", ())
    runs(tmp_path).end("vm")
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    host = LinuxHost()
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    log = tmp_path / "log"
    pid = host.spawn([sys.executable, "-c", script], log=str(log), descriptors={}, environment={"NVLANE_TOKEN": "t1"})
    assert host.wait_until(lambda: log.exists() and "up" in log.read_text(), deadline=20)
    start_time = start_time_of(host, pid)
    assert start_time is not None
    assert [(found.pid, found.start_time) for found in find_by_token(host, "t1")] == [(pid, start_time)]
    assert host.signal(pid, start_time, 15)
    assert not host.wait_end(pid, start_time, deadline=0.2)
    assert not host.signal(pid, start_time + 1, 9), "another process of the same number is not ours"
    assert host.signal(pid, start_time, 9)
    assert host.wait_end(pid, start_time, deadline=10)
    assert find_by_token(host, "t1") == ()
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_process_is_found_as_soon_as_it_was_started(tmp_path: Path) -> None:
    # /proc shows no environment for a while after vfork(2): in one start of 25 here, in most on a busy machine.
    host = LinuxHost()
    for number in range(200):
        token = {"NVLANE_TOKEN": f"early-{number}"}
        pid = host.spawn(["sleep", "60"], log=str(tmp_path / "log"), descriptors={}, environment=token)
        start_time = start_time_of(host, pid)
        assert start_time is not None
        try:
            assert f"NVLANE_TOKEN=early-{number}".encode() in host.read_bytes(f"/proc/{pid}/environ").split(b"\0")
        finally:
            assert host.signal(pid, start_time, 9)
            assert host.wait_end(pid, start_time, deadline=10)


def test_a_socket_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="longer than the 107 bytes"):
        LinuxHost().listen(f"{tmp_path}/{'x' * 120}")
