"""The JSON-RPC client against peers that answer well, slowly, in pieces, or not at all."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvlane.model.errors import WireError
from nvlane.wire.jsonrpc import METHOD_NOT_FOUND, JsonRpc, RpcError
from nvlane.wire.lines import DeadlineMissed, PeerClosed

Script = Callable[[socket.socket], None]
Serve = Callable[[Script], str]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Runs a script as the one who listens; gives the path of its socket."""
    path = str(tmp_path / "rpc.sock")
    threads: list[threading.Thread] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen(1)

        def run(script: Script) -> None:
            with listener.accept()[0] as peer:
                script(peer)

        def start(script: Script) -> str:
            threads.append(threading.Thread(target=run, args=(script,)))
            threads[-1].start()
            return path

        yield start
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def hear(peer: socket.socket) -> dict[str, Any]:
    """The next request; the client ends each with a line."""
    data = b""
    while not data.endswith(b"\n"):
        part = peer.recv(4096)
        assert part, "the client closed the connection"
        data += part
    request: dict[str, Any] = json.loads(data)
    return request


def answering(*results: Any) -> Script:
    def script(peer: socket.socket) -> None:
        for result in results:
            reply = {"jsonrpc": "2.0", "id": hear(peer)["id"], **result}
            peer.sendall(json.dumps(reply).encode())  # SPDK's own client does not need the line's end either

    return script


def test_a_request_is_as_the_standard_has_it(serve: Serve) -> None:
    heard: list[dict[str, Any]] = []

    def script(peer: socket.socket) -> None:
        for _ in range(2):
            heard.append(hear(peer))
            peer.sendall(json.dumps({"jsonrpc": "2.0", "id": heard[-1]["id"], "result": True}).encode() + b"\n")

    with JsonRpc.connect(serve(script)) as target:
        assert target.call("framework_wait_init") is True
        assert target.call("bdev_null_create", {"name": "n0"}) is True
    assert heard == [
        {"jsonrpc": "2.0", "id": 1, "method": "framework_wait_init"},
        {"jsonrpc": "2.0", "id": 2, "method": "bdev_null_create", "params": {"name": "n0"}},
    ]


def test_an_error_has_its_code_and_words(serve: Serve) -> None:
    said = {"code": METHOD_NOT_FOUND, "message": "Method not found", "data": "there is no method nope"}
    with JsonRpc.connect(serve(answering({"error": said}))) as target, pytest.raises(RpcError) as error:
        target.call("nope")
    assert error.value.message == "nope: Method not found: there is no method nope (code -32601)"
    assert (error.value.code, error.value.method) == (METHOD_NOT_FOUND, "nope")


def test_a_reply_in_pieces_and_two_in_one(serve: Serve) -> None:
    def script(peer: socket.socket) -> None:
        first = hear(peer)["id"]
        text = json.dumps(
            {"jsonrpc": "2.0", "id": first, "result": {"brace": "}", "µ": "µ" * 1000}}, ensure_ascii=False
        )
        whole = text.encode() + json.dumps({"jsonrpc": "2.0", "id": first + 1, "result": 2}).encode()
        for at in range(0, len(whole), 700):
            peer.sendall(whole[at : at + 700])
        hear(peer)

    with JsonRpc.connect(serve(script)) as target:
        assert target.call("one") == {"brace": "}", "µ": "µ" * 1000}
        assert target.call("two") == 2


def test_a_late_reply_is_not_taken_for_the_next_one(serve: Serve) -> None:
    def script(peer: socket.socket) -> None:
        late = hear(peer)["id"]
        soon = hear(peer)["id"]
        for number, result in ((late, "late"), (soon, "soon")):
            peer.sendall(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode())

    with JsonRpc.connect(serve(script)) as target:
        with pytest.raises(DeadlineMissed, match="slow was not answered in time"):
            target.call("slow", deadline=0.1)
        assert target.call("quick") == "soon"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"<html>", "no JSON object"),
        (b"[1, 2]", "no JSON object"),
        (b'{"id": 1}', "neither result nor error"),
        (b'{"id": 1, "error": 3}', "no object"),
        (b'{"id": null, "error": {"code": -32700, "message": "Parse error"}}', "Parse error"),
    ],
)
def test_a_peer_that_breaks_the_protocol(serve: Serve, said: bytes, words: str) -> None:
    def script(peer: socket.socket) -> None:
        hear(peer)
        peer.sendall(said)

    with JsonRpc.connect(serve(script)) as target, pytest.raises(WireError, match=words):
        target.call("anything")


def test_a_peer_that_hangs_up(serve: Serve) -> None:
    def script(peer: socket.socket) -> None:
        hear(peer)
        peer.sendall(b'{"id": 1, "res')

    with JsonRpc.connect(serve(script)) as target, pytest.raises(PeerClosed):
        target.call("anything")


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(PeerClosed, match=r"rpc\.sock"):
        JsonRpc.connect(str(tmp_path / "rpc.sock"))
