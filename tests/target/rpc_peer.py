"""The two ends of a JSON-RPC test: SPDK's own client, and a bare socket for what no decent client would send."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spdk.rpc import config
from spdk.rpc.client import JSONRPCClient, JSONRPCException
from target_process import Target

from nvlane.wire.lines import PeerClosed

#: Seconds that an answer may take.
DEADLINE = 10.0


class Refused(Exception):
    """The error member of a reply."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: str = error.get("data", "")


class Bare(Target):
    """A target with the options that a test gives and no others: no state, unless it is one of them."""

    def start(self) -> None:
        words = [str(self.binary), "-S", str(self.directory), "-r", str(self.rpc_socket), *self._options]
        with (self.directory / "target.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.directory)
        until = time.monotonic() + DEADLINE
        while True:
            assert self.process.poll() is None, f"it ended: {self.process.returncode}\n{self.last_words()}"
            with contextlib.suppress(PeerClosed):
                self.call("spdk_get_version")
                return
            assert time.monotonic() < until, f"it does not answer\n{self.last_words()}"
            time.sleep(0.005)


class Peer:
    """SPDK's client, whose text of an error is taken apart again."""

    def __init__(self, target: Target) -> None:
        self.client = JSONRPCClient(str(target.rpc_socket), timeout=DEADLINE)

    def __call__(self, method: str, params: dict[str, Any] | None = None, /, **named: Any) -> Any:
        try:
            return self.client.call(method, {**(params or {}), **named})
        except JSONRPCException as error:
            _, found, reply = error.message.partition("\nresponse:\n")
            if not found:
                raise
            raise Refused(json.loads(reply)) from error

    def saved(self) -> str:
        """What `spdk-rpc save_config` would print."""
        text = _Text()
        config.save_config(self.client, text)
        return text.whole


class _Text:
    def __init__(self) -> None:
        self.whole = ""

    def write(self, part: str) -> None:
        self.whole += part


class Wire:
    """A connection that sends bytes as they are."""

    def __init__(self, target: Target) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(target.rpc_socket))
        self._rest = ""

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def call(self, method: str, params: Any = None, ident: Any = 1) -> dict[str, Any]:
        request = {"jsonrpc": "2.0", "method": method, "id": ident}
        self.send(json.dumps(request if params is None else {**request, "params": params}))
        return self.reply()

    def reply(self) -> Any:
        """The next JSON value; raises EOFError when the connection was closed instead."""
        decoder = json.JSONDecoder()
        while True:
            text = self._rest.lstrip()
            try:
                value, end = decoder.raw_decode(text)
            except ValueError:
                piece = self.socket.recv(65536)
                if not piece:
                    raise EOFError(self._rest) from None
                self._rest += piece.decode()
                continue
            self._rest = text[end:]
            return value

    def closed(self) -> bool:
        """Whether the other end has closed it, and left nothing to read."""
        try:
            return not self._rest.strip() and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def silent(self, method: str = "rpc_get_methods") -> bool:
        """Whether nothing comes before the answer to a question that is asked now."""
        reply = self.call(method, ident="silence")
        return bool(reply.get("id") == "silence")


def recorded() -> Iterator[dict[str, Any]]:
    """Requests that were sent to SPDK 26.05, and what it answered."""
    pairs = json.loads((Path(__file__).parent / "spdk-rpc-26.05.json").read_text())
    yield from pairs
