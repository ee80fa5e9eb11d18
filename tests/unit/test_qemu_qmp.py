"""The QMP client: against a real QEMU, and against a peer that breaks the protocol, which QEMU cannot be made
to do."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from qemu_cases import Case
from test_qemu_run import up

from nvlane.apply.process import run, spawn
from nvlane.model.errors import WireError
from nvlane.wire.lines import PeerClosed
from nvlane.wire.qmp import Qmp, QmpError

QEMU = shutil.which("qemu-system-x86_64") or ""
real = pytest.mark.skipif(not QEMU, reason="QEMU is not installed")
GREETING = {"QMP": {"version": {"qemu": {"major": 9, "minor": 8, "micro": 7}, "package": ""}, "capabilities": []}}

Script = Callable[[socket.socket], None]


def say(peer: socket.socket, *messages: object) -> None:
    for message in messages:
        peer.sendall(json.dumps(message).encode() + b"\r\n")


def hear(peer: socket.socket) -> dict[str, object]:
    line = bytearray()
    while not line.endswith(b"\n"):
        data = peer.recv(1)
        assert data, "the client closed the connection"
        line += data
    message = json.loads(line)
    assert isinstance(message, dict)
    return message


def greet(peer: socket.socket) -> None:
    say(peer, GREETING)
    say(peer, {"return": {}, "id": hear(peer)["id"]})


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Callable[[Script], str]]:
    """Runs a script as the one who listens; gives the path of its socket."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = str(tmp_path / "qmp.sock")
    listener.bind(path)
    listener.listen(1)

    def play(script: Script) -> str:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                script(connection)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return path

    yield play
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    listener.close()


@real
def test_a_command_its_error_and_an_event(tmp_path: Path) -> None:
    with up(Case(), tmp_path) as monitor:
        assert monitor.version >= (7, 2, 0)
        assert monitor.execute("query-name") == {"name": "sles,15"}
        with pytest.raises(QmpError, match="nothing") as error:
            monitor.execute("nothing")
        assert error.value.kind == "CommandNotFound"
        # The events come before and while replies are awaited, and none is lost.
        monitor.execute("stop")
        monitor.execute("cont")
        assert monitor.wait_event("RESUME", deadline=5)["event"] == "RESUME"
        assert monitor.wait_event("STOP", deadline=5)["event"] == "STOP"
        assert [event["event"] for event in monitor.events()] == []


@real
def test_the_end_of_the_process_ends_the_wait(tmp_path: Path) -> None:
    """QEMU cannot answer while it is stopped by a signal; then it is killed: no deadline has to pass."""
    with pytest.raises(PeerClosed), up(Case(), tmp_path) as monitor:
        pid = int(monitor.execute("query-cpus-fast")[0]["thread-id"])
        group = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Tgid"))
        os.kill(int(group.split()[1]), 9)
        monitor.execute("query-name", deadline=60)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(PeerClosed, match=r"cannot connect to .*qmp\.sock"):
        Qmp.connect(str(tmp_path / "qmp.sock"))


def test_a_process_that_never_greets_and_ends(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "qmp.sock"))
    listener.listen(1)
    pid = spawn(["sleep", "0.2"], log=tmp_path / "log")
    before = time.monotonic()
    with pytest.raises(PeerClosed, match="has ended"):
        Qmp.connect(str(tmp_path / "qmp.sock"), deadline=30, pid=pid)
    assert time.monotonic() - before < 10
    os.waitpid(pid, 0)
    with pytest.raises(PeerClosed, match="has ended"):
        Qmp.connect(str(tmp_path / "qmp.sock"), deadline=30, pid=pid)
    listener.close()


def test_a_second_client_is_told_what_may_be_wrong(peer: Callable[[Script], str]) -> None:
    def silent(connection: socket.socket) -> None:
        connection.recv(1)

    with pytest.raises(WireError, match="another client"):
        Qmp.connect(peer(silent), deadline=0.2)


def test_a_full_queue_of_the_listener_keeps_the_deadline(tmp_path: Path) -> None:
    path = str(tmp_path / "qmp.sock")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(0)
    first = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    first.connect(path)
    with pytest.raises(WireError, match="cannot connect"):
        Qmp.connect(path, deadline=0.2)
    first.close()
    listener.close()


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (b"hello\n", "not JSON"),
        (b"[1]\n", "no JSON object"),
        (b'{"QMP": 1}\n', "does not speak QMP"),
        (b'{"version": 1}\n', "does not speak QMP"),
        (b"\xff\xfe\n", "not JSON"),
        (b"", "connection was closed"),
    ],
)
def test_a_wrong_greeting(peer: Callable[[Script], str], message: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        Qmp.connect(peer(lambda connection: connection.sendall(message)), deadline=5)


def test_a_late_reply_is_not_taken_for_the_next(peer: Callable[[Script], str]) -> None:
    def late(connection: socket.socket) -> None:
        greet(connection)
        first = hear(connection)["id"]
        second = hear(connection)["id"]
        say(connection, {"return": "late", "id": first}, {"event": "E", "data": {"n": 1}})
        say(connection, {"return": "right", "id": second})

    with Qmp.connect(peer(late)) as monitor:
        with pytest.raises(WireError, match="the reply to slow did not come in time"):
            monitor.execute("slow", deadline=0.1)
        assert monitor.execute("quick") == "right"
        assert monitor.version == (9, 8, 7)
        assert monitor.wait_event("E", deadline=1)["data"] == {"n": 1}


def test_an_event_is_matched_by_its_data(peer: Callable[[Script], str]) -> None:
    def events(connection: socket.socket) -> None:
        greet(connection)
        say(connection, *({"event": "DEVICE_DELETED", "data": {"device": name}} for name in ("a", "b")))
        connection.recv(1)

    with Qmp.connect(peer(events)) as monitor:
        found = monitor.wait_event("DEVICE_DELETED", match=lambda data: data.get("device") == "b", deadline=5)
        assert found["data"] == {"device": "b"}
        with pytest.raises(WireError, match="the event DEVICE_DELETED did not come"):
            monitor.wait_event("DEVICE_DELETED", match=lambda data: data.get("device") == "c", deadline=0.1)
        assert [event["data"] for event in monitor.events()] == [{"device": "a"}]


def test_importing_it_brings_no_asyncio() -> None:
    """A verb that asks QEMU one question must not pay for an event loop."""
    code = "import sys, nvlane.wire.qmp; sys.exit('asyncio' in sys.modules)"
    assert run(["python3", "-c", code], env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")}).returncode == 0


def test_an_event_before_the_greeting_is_kept(peer: Callable[[Script], str]) -> None:
    """QEMU greets a little after it has accepted, and until then the monitor is in the mode of its last client."""
    event = {"event": "BLOCK_JOB_CANCELLED", "data": {"device": "data"}, "timestamp": {"seconds": 1, "microseconds": 2}}

    def script(connection: socket.socket) -> None:
        say(connection, event)
        greet(connection)

    with Qmp.connect(peer(script)) as monitor:
        assert monitor.version == (9, 8, 7)
        assert monitor.wait_event("BLOCK_JOB_CANCELLED", deadline=1)["data"] == {"device": "data"}
