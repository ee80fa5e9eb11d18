"""JSON-RPC 2.0 over a UNIX socket, as SPDK and nvlane-target speak it: one value after the other, with or without line
ends between them.

One question, one answer, every wait with a deadline in seconds. A reply to an earlier question whose deadline was over
is dropped by its id.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from nvlane.model.errors import WireError
from nvlane.wire.lines import DeadlineMissed, LineSocket

#: JSON-RPC 2.0, section 5.1: the method does not exist.
METHOD_NOT_FOUND: Final = -32601


class RpcError(WireError):
    """The peer answered with an error: `code` and `words` are its own, `detail` a sentence more, if it has one."""

    def __init__(self, method: str, code: int, words: str, detail: str = "") -> None:
        super().__init__(f"{method}: {words}{': ' if detail else ''}{detail} (code {code})")
        self.method = method
        self.code = code
        self.words = words


class JsonRpc:
    """A connection to one RPC socket."""

    def __init__(self, path: str, peer: LineSocket) -> None:
        self._path = path
        self._peer = peer
        self._number = 0

    @classmethod
    def connect(cls, path: str, *, deadline: float = 10.0, pid: int | None = None) -> Self:
        """Connect; `pid` is the process behind the socket, when the caller knows it: its end ends every wait. Raises
        PeerClosed when nobody listens or that process has ended."""
        return cls(path, LineSocket(Path(path), deadline=deadline, pid=pid))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; more than once does no harm."""
        self._peer.close()

    def call(self, method: str, params: Mapping[str, Any] | None = None, *, deadline: float = 30.0) -> Any:
        """The result of a method. Raises RpcError when the peer refuses it, DeadlineMissed, PeerClosed."""
        until = time.monotonic() + deadline
        self._number += 1
        request: dict[str, Any] = {"jsonrpc": "2.0", "id": self._number, "method": method}
        if params:
            request["params"] = params
        self._peer.send(request, deadline=deadline)
        while True:
            reply = self._receive(method, until)
            if reply.get("id") == self._number:
                return _result(method, reply)
            if reply.get("id") is None and "error" in reply:
                # What could not even be read as a request has no id to answer to (section 5).
                return _result(method, reply)

    def _receive(self, method: str, until: float) -> dict[str, Any]:
        try:
            reply = self._peer.receive_value(deadline=max(0.0, until - time.monotonic()))
        except DeadlineMissed as error:
            raise DeadlineMissed(
                f"{self._path}: {method} was not answered in time", remedy="look at the log beside the socket"
            ) from error
        if not isinstance(reply, dict):
            raise WireError(f"{self._path} sent no JSON object: {json.dumps(reply)[:200]}")
        return reply


def _result(method: str, reply: Mapping[str, Any]) -> Any:
    if "error" in reply:
        error = reply["error"]
        if not isinstance(error, dict):
            raise WireError(f"{method}: the error is no object: {json.dumps(error)[:200]}")
        detail = error.get("data")
        words = str(error.get("message", error))
        raise RpcError(method, int(error.get("code", 0)), words, detail if isinstance(detail, str) else "")
    if "result" not in reply:
        raise WireError(f"{method}: the reply has neither result nor error: {json.dumps(reply)[:200]}")
    return reply["result"]
