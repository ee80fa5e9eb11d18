"""The two ways to a guest, against the real probe and, where it is installed, the real QEMU guest agent."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvlane.model.errors import WireError
from nvlane.verify.agent import AgentGuest
from nvlane.verify.guest import CALL_DEADLINE, GuestFault, answer_of
from nvlane.verify.pattern import pattern
from nvlane.verify.probe import ProbeGuest
from nvlane.wire.guest_agent import SocketAgent
from nvlane.wire.lines import DeadlineMissed, LineSocket, PeerClosed

ROOT = Path(__file__).resolve().parents[2]
PLACES = (ROOT / "src/nvlane/_bin/nvlane-probe", ROOT / "target/release/nvlane-probe")
PROBE = next((place for place in PLACES if place.is_file()), None)
AGENT = shutil.which("qemu-ga", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")

needs_probe = pytest.mark.skipif(PROBE is None, reason="nvlane-probe has not been built (make)")
needs_agent = pytest.mark.skipif(AGENT is None, reason="no qemu-ga here (Debian: qemu-guest-agent)")

Peer = Callable[[socket.socket], None]


@contextmanager
def listening(path: Path, peer: Peer) -> Iterator[Path]:
    """A socket whose one visitor is served by `peer`."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)

        def serve() -> None:
            visitor, _ = server.accept()
            with visitor:
                peer(visitor)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join(timeout=20)
            assert not thread.is_alive(), "the peer's thread hangs"


def real_probe(visitor: socket.socket) -> None:
    assert PROBE is not None
    stream = visitor.fileno()
    subprocess.run([PROBE, "once"], stdin=stream, stdout=stream, check=True, timeout=20)


@needs_probe
def test_the_real_probe_answers(tmp_path: Path) -> None:
    with listening(tmp_path / "s", real_probe) as path, ProbeGuest(path) as guest:
        hello = guest.wait_until_up(deadline=10)
        assert not hello.is_probe_guest
        assert hello.kernel
        inventory = guest.inventory()
        assert inventory["cpus"] >= 1
        assert {"nvme", "block", "nvdimm", "pci", "memory", "tools"} <= set(inventory)


@needs_probe
def test_programs_run_in_the_guest(tmp_path: Path) -> None:
    with listening(tmp_path / "s", real_probe) as path, ProbeGuest(path) as guest:
        assert guest.run(["cat"], stdin="words").stdout == "words"
        with pytest.raises(GuestFault) as caught:
            guest.run(["sleep", "30"], timeout=0.1)
        assert caught.value.code == "deadline"


@needs_probe
def test_a_written_pattern_is_what_this_side_computes(tmp_path: Path) -> None:
    target = tmp_path / "disk"
    target.write_bytes(b"\xee" * (1 << 20))
    expected = pattern(2**63 + 5, 65536)
    with listening(tmp_path / "s", real_probe) as path, ProbeGuest(path) as guest:
        answer = guest.call("write_pattern", device=str(target), offset=4096, length=65536, seed=2**63 + 5)
        digest = guest.digest(str(target), [(4096, 65536)])
    assert answer["matches"]
    assert answer["sha256"] == digest == hashlib.sha256(expected).hexdigest()
    assert target.read_bytes()[4096 : 4096 + 65536] == expected


@needs_probe
def test_a_guests_no_has_its_code_and_errno(tmp_path: Path) -> None:
    with listening(tmp_path / "s", real_probe) as path, ProbeGuest(path) as guest:
        with pytest.raises(GuestFault) as caught:
            guest.digest("/nowhere", [(0, 1)])
        assert caught.value.errno == 2
        with pytest.raises(GuestFault, match="no method"):
            guest.call("make_coffee")
        assert guest.hello().version


def test_stale_and_foreign_lines_are_dropped(tmp_path: Path) -> None:
    def peer(visitor: socket.socket) -> None:
        stream = visitor.makefile("rw")
        request = json.loads(stream.readline())
        stream.write('"the rest of a line that was somebody else\'s"}\n{"event":"ready"}\n')
        stream.write('{"id":"an-earlier-client-1","ok":{"wrong":true}}\n')
        stream.write(json.dumps({"id": request["id"], "ok": {"right": True}}) + "\n")
        stream.flush()
        stream.readline()

    with listening(tmp_path / "s", peer) as path, ProbeGuest(path) as guest:
        assert guest.call("hello", deadline=5) == {"right": True}


def test_after_a_missed_deadline_the_next_call_is_in_step(tmp_path: Path) -> None:
    def peer(visitor: socket.socket) -> None:
        stream = visitor.makefile("rw")
        late = json.loads(stream.readline())
        second = json.loads(stream.readline())
        for request, answer in ((late, "late"), (second, "second")):
            stream.write(json.dumps({"id": request["id"], "ok": {"which": answer}}) + "\n")
        stream.flush()
        stream.readline()

    with listening(tmp_path / "s", peer) as path, ProbeGuest(path) as guest:
        with pytest.raises(DeadlineMissed):
            guest.call("digest", deadline=0.1)
        assert guest.call("hello", deadline=5) == {"which": "second"}


def test_a_guest_that_never_comes_up_is_said_at_the_deadline(tmp_path: Path) -> None:
    def deaf(visitor: socket.socket) -> None:
        while visitor.recv(4096):
            pass

    start = time.monotonic()
    late = pytest.raises(DeadlineMissed, match="did not come up")
    with listening(tmp_path / "s", deaf) as path, ProbeGuest(path) as guest, late:
        guest.wait_until_up(deadline=1.3)
    assert 1.2 < time.monotonic() - start < 5


def test_an_ended_machine_is_not_waited_for(tmp_path: Path) -> None:
    def gone(visitor: socket.socket) -> None:
        visitor.recv(1)

    start = time.monotonic()
    with listening(tmp_path / "s", gone) as path, ProbeGuest(path) as guest, pytest.raises(PeerClosed):
        guest.wait_until_up(deadline=30)
    assert time.monotonic() - start < 5


def test_rubbish_after_the_first_answer_is_a_fault(tmp_path: Path) -> None:
    def peer(visitor: socket.socket) -> None:
        stream = visitor.makefile("rw")
        stream.write(json.dumps({"id": json.loads(stream.readline())["id"], "ok": {}}) + "\n")
        stream.flush()
        stream.readline()
        stream.write("{]\n")
        stream.flush()
        stream.readline()

    with listening(tmp_path / "s", peer) as path, ProbeGuest(path) as guest:
        guest.call("hello", deadline=5)
        with pytest.raises(WireError, match="not JSON"):
            guest.call("hello", deadline=5)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(WireError, match="cannot connect"):
        LineSocket(tmp_path / "none")


@pytest.mark.parametrize("reply", [{}, {"ok": 3}, {"error": "words"}, {"error": {"code": "x"}}])
def test_replies_out_of_protocol_are_faults(reply: dict[str, object]) -> None:
    with pytest.raises(WireError, match="not understood"):
        answer_of("hello", reply)


@pytest.mark.parametrize("length", [0, 1, 8, 13])
def test_a_pattern_has_its_length_and_the_published_words(length: int) -> None:
    published = (6457827717110365317).to_bytes(8, "little") + (3203168211198807973).to_bytes(8, "little")
    assert pattern(1234567, length) == published[:length]


@contextmanager
def agent(tmp_path: Path, *options: str) -> Iterator[Path]:
    """A real agent, for this very machine as its guest."""
    assert AGENT is not None
    path = tmp_path / "agent.sock"
    argv = [AGENT, "-m", "unix-listen", "-p", str(path), "-t", str(tmp_path), *options]
    process = subprocess.Popen([*argv, "-f", str(tmp_path / "pid"), "-l", str(tmp_path / "log")])
    try:
        end = time.monotonic() + 10
        while not path.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        yield path
    finally:
        process.kill()
        process.wait()


@needs_agent
@needs_probe
def test_the_real_agent_runs_the_probe_and_keeps_nothing(tmp_path: Path) -> None:
    assert PROBE is not None
    before = {path for place in ("/run", "/tmp", "/var/tmp") for path in Path(place).glob("nvlane-*")}
    with agent(tmp_path) as path:
        with AgentGuest(SocketAgent(path, deadline=CALL_DEADLINE), PROBE) as guest:
            assert not guest.hello().is_probe_guest
            assert guest.inventory()["cpus"] >= 1
            uploaded = {path for place in ("/run", "/tmp", "/var/tmp") for path in Path(place).glob("nvlane-*")}
            made = uploaded - before
            assert [place.stat().st_mode & 0o777 for place in made if (place / "nvlane-probe").exists()] == [0o700]
            with pytest.raises(GuestFault):
                guest.digest("/nowhere", [(0, 1)])
        assert not any(place.exists() for place in made)


@needs_agent
@needs_probe
def test_programs_are_put_into_a_guest_and_are_gone_with_the_probe(tmp_path: Path) -> None:
    assert PROBE is not None
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "words").write_bytes(b"these\n")
    with agent(tmp_path) as path:
        with AgentGuest(SocketAgent(path, deadline=CALL_DEADLINE), PROBE) as guest:
            place = guest.put_tree([("run", Path("/bin/cat")), ("lib/words", tmp_path / "lib" / "words")])
            assert guest.run([f"{place}/run", f"{place}/lib/words"]).stdout == "these\n"
        assert not Path(place).exists()


@needs_agent
@needs_probe
def test_a_blocked_agent_is_named_with_the_remedy(tmp_path: Path) -> None:
    assert PROBE is not None
    with agent(tmp_path, "-b", "guest-exec") as path, pytest.raises(WireError, match="guest-exec") as caught:
        AgentGuest(SocketAgent(path, deadline=CALL_DEADLINE), PROBE)
    assert "block-rpcs" in caught.value.remedy


def test_no_agent_behind_the_socket_is_said(tmp_path: Path) -> None:
    def deaf(visitor: socket.socket) -> None:
        while visitor.recv(4096):
            pass

    with listening(tmp_path / "s", deaf) as path, pytest.raises(DeadlineMissed, match="no QEMU guest agent"):
        SocketAgent(path, deadline=0.3)


def test_an_agent_that_was_busy_for_somebody_else_gets_in_step(tmp_path: Path) -> None:
    def peer(visitor: socket.socket) -> None:
        stream = visitor.makefile("rwb")
        token = json.loads(stream.readline().lstrip(b"\xff"))["arguments"]["id"]
        stream.write(b'{"return": {"an": "old answer"}}\n')
        stream.write(b"\xff" + json.dumps({"return": token}).encode() + b"\n")
        stream.flush()
        assert json.loads(stream.readline())["execute"] == "guest-ping"
        stream.write(b'{"error": {"class": "GenericError", "desc": "not today"}}\n')
        stream.flush()
        stream.readline()

    with listening(tmp_path / "s", peer) as path:
        connection = SocketAgent(path, deadline=5)
        with pytest.raises(WireError, match="not today"):
            connection.command("guest-ping", deadline=5)
        connection.close()
