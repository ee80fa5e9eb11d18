"""JSON-RPC 2.0 as bytes: pieces, several requests in one write, batches, notifications, limits, slow clients."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rpc_peer import Bare, Peer, Wire
from target_process import Target


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with Bare(tmp_path_factory.mktemp("wire")) as running:
        yield running


@pytest.fixture
def wire(target: Target) -> Iterator[Wire]:
    connection = Wire(target)
    yield connection
    connection.socket.close()


def request(ident: Any, method: str = "log_get_level") -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "id": ident})


def test_several_requests_in_one_write(wire: Wire) -> None:
    wire.send(request(1) + request(2) + "\n\n" + request(3) + " ")
    assert [wire.reply()["id"] for _ in range(3)] == [1, 2, 3]


def test_a_request_in_pieces(wire: Wire) -> None:
    text = request("ü") + request(2)
    for byte in text.encode():
        wire.send(bytes([byte]))
    assert [wire.reply()["id"] for _ in range(2)] == ["ü", 2]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 80), max_size=12))
def test_any_cut(target: Target, cuts: list[int]) -> None:
    wire = Wire(target)
    text = (request(1) + "[" + request(2) + "," + request(3) + "]" + request(4)).encode()
    for cut in cuts:
        wire.send(text[:cut])
        text = text[cut:]
    wire.send(text)
    assert [wire.reply() if n == 1 else wire.reply()["id"] for n in range(3)][::2] == [1, 4]
    wire.socket.close()


@pytest.mark.parametrize("ident", ["1", '"x"', "-7", "1.5", "1e3", "12345678901234567890", '"\\u0041"', '""'])
def test_an_id_comes_back_as_it_was_written(wire: Wire, ident: str) -> None:
    wire.send(f'{{"method":"log_get_level","id":{ident}}}')
    assert wire.socket.recv(65536).decode().startswith(f'{{"jsonrpc":"2.0","id":{ident},"result":')


@pytest.mark.parametrize("ident", ["{}", "[1]", "true"])
def test_an_id_that_is_none_is_refused(wire: Wire, ident: str) -> None:
    wire.send(f'{{"method":"log_get_level","id":{ident}}}')
    reply = wire.reply()
    assert (reply["id"], reply["error"]["code"]) == (None, -32600)
    assert wire.silent(), "the connection goes on"


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","method":"log_get_level"}',
        '{"jsonrpc":"2.0","method":"log_get_level","id":null}',
        '{"jsonrpc":"2.0","method":"no_such_method"}',
        '{"jsonrpc":"2.0","method":"bdev_malloc_create","params":{"bogus":1}}',
        '[{"method":"log_get_level"},{"method":"no_such_method"}]',
    ],
)
def test_a_notification_gets_no_reply(wire: Wire, text: str) -> None:
    wire.send(text)
    assert wire.silent()


def test_a_notification_is_carried_out(target: Target, wire: Wire) -> None:
    params = {"name": "Told", "num_blocks": 8, "block_size": 512}
    wire.send(json.dumps({"jsonrpc": "2.0", "method": "bdev_null_create", "params": params}))
    assert wire.silent()
    assert Peer(target)("bdev_null_delete", name="Told") is True


def test_a_batch_is_one_reply_without_the_notifications(wire: Wire) -> None:
    calls = [request(1), '{"method":"log_get_level"}', request("b", "nope"), "7", '{"id":3}', "[]"]
    wire.send("[" + ",".join(calls) + "]")
    reply = wire.reply()
    by_id = {entry["id"]: entry for entry in reply if entry["id"] is not None}
    assert by_id[1]["result"] == "NOTICE"
    assert by_id["b"]["error"]["code"] == -32601
    assert [entry["error"]["code"] for entry in reply if entry["id"] is None] == [-32600] * 3
    assert len(reply) == 5


def test_a_batch_of_slow_work_is_done_in_order(target: Target, wire: Wire) -> None:
    create = {
        "method": "bdev_malloc_create",
        "params": {"name": "Slow", "num_blocks": 65536, "block_size": 512},
        "id": 1,
    }
    look = {"method": "bdev_get_bdevs", "params": {"name": "Slow"}, "id": 2}
    delete = {"method": "bdev_malloc_delete", "params": {"name": "Slow"}, "id": 3}
    wire.send(json.dumps([create, look, delete]))
    reply = {entry["id"]: entry for entry in wire.reply()}
    assert (reply[1]["result"], reply[2]["result"][0]["name"], reply[3]["result"]) == ("Slow", "Slow", True)
    assert "Slow" not in json.dumps(Peer(target)("bdev_get_bdevs"))


@pytest.mark.parametrize(("batch", "code"), [("[]", -32600), ("[" + ",".join(["1"] * 1025) + "]", -32600)])
def test_a_batch_has_one_to_1024_requests(wire: Wire, batch: str, code: int) -> None:
    wire.send(batch)
    assert wire.reply()["error"]["code"] == code
    assert wire.silent()


@pytest.mark.parametrize("text", ["3 ", '"x"', "null", "true", '{"jsonrpc":"1.0","method":"log_get_level","id":1}'])
def test_what_is_no_request_is_an_invalid_one(wire: Wire, text: str) -> None:
    wire.send(text)
    assert wire.reply()["error"]["code"] == -32600
    assert wire.silent()


@pytest.mark.parametrize(
    "text",
    ["{nope", "}", "[1 2]", '{"method":"\x01"}', b'{"method":"\xff"}', "[" * 65, '{"a":' * 65, "nul}", "[01", '"\\x"'],
)
def test_what_is_no_json_ends_the_connection(target: Target, wire: Wire, text: str | bytes) -> None:
    wire.send(text)
    assert wire.reply()["error"]["code"] == -32700
    assert wire.closed()
    assert Wire(target).silent(), "and no other"


def test_nesting_of_64_levels_is_read(wire: Wire) -> None:
    wire.send("[" * 64 + "]" * 64)
    assert wire.reply()[0]["error"]["code"] == -32600


def test_a_request_is_a_mebibyte_at_most(wire: Wire) -> None:
    wire.send('{"method":"log_get_level","params":{"a":"' + "x" * 1_000_000 + '"},"id":1}')
    assert wire.reply()["id"] == 1
    with pytest.raises((EOFError, ConnectionError, BrokenPipeError)):
        wire.send('{"method":"' + "x" * 3_000_000)
        assert wire.reply()["error"]["code"] == -32700
        wire.reply()


def test_many_clients_at_once(target: Target) -> None:
    wires = [Wire(target) for _ in range(100)]
    for number, wire in enumerate(wires):
        wire.send(request(number))
    assert [wire.reply()["id"] for wire in wires] == list(range(100))
    for wire in wires:
        wire.socket.close()


def test_a_client_that_does_not_read_is_not_served_and_hinders_nobody(target: Target) -> None:
    deaf = Wire(target)
    deaf.socket.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < 100_000:
            deaf.send(request(sent, "rpc_get_methods") * 10)
            sent += 10
    assert Wire(target).silent()
    memory = int(open(f"/proc/{target.process.pid}/statm").read().split()[1]) * 4096  # noqa: SIM115, PTH123
    assert memory < 100 << 20
    # Once it reads, it gets everything that was taken.
    deaf.socket.settimeout(10)
    assert [deaf.reply()["id"] for _ in range(100)] == [n - n % 10 for n in range(100)]
    deaf.socket.close()


def test_a_client_that_hangs_up_in_the_middle(target: Target) -> None:
    for text in ["", "{", request(1), "[" + request(1), request(1, "framework_wait_init")]:
        wire = Wire(target)
        wire.send(text)
        wire.socket.close()
    waiting = Wire(target)
    wait = {"method": "bdev_get_bdevs", "params": {"name": "Never", "timeout": 60_000}, "id": 1}
    waiting.send(json.dumps(wait))
    assert Wire(target).silent()
    waiting.socket.close()
    before = cpu_seconds(target)
    time.sleep(0.5)
    assert cpu_seconds(target) - before < 0.2, "nobody is waited for with all one has"


def test_a_client_that_closes_one_way_gets_its_answers(target: Target) -> None:
    wire = Wire(target)
    wire.send(request(1) + request(2))
    wire.socket.shutdown(socket.SHUT_WR)
    assert [wire.reply()["id"] for _ in range(2)] == [1, 2]
    assert wire.closed()


def cpu_seconds(target: Target) -> float:
    fields = open(f"/proc/{target.process.pid}/stat").read().rpartition(")")[2].split()  # noqa: SIM115, PTH123
    return (int(fields[11]) + int(fields[12])) / 100


def test_an_idle_target_sleeps(target: Target) -> None:
    before = cpu_seconds(target)
    time.sleep(1)
    assert cpu_seconds(target) - before <= 0.02
