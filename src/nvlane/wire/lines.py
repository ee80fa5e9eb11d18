"""JSON values, one a line, over a UNIX socket: what the in-guest probe and the QEMU guest agent both speak.

Synchronous; every wait has a deadline, given in seconds from now.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvlane.model.errors import WireError

LONGEST_LINE = 32 << 20
"""Bytes. The guest agent's longest answer, 16 MiB of output in base64, is below it."""


class DeadlineMissed(WireError):
    """The peer said nothing in time. It may still answer later."""


class PeerClosed(WireError):
    """The other end is gone: the virtual machine ended, or another client took the socket."""


class LineSocket:
    """One connection. `path` names it in errors."""

    def __init__(self, path: Path) -> None:
        """Connect. Raises WireError when nobody listens there."""
        self._path = path
        self._received = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(str(path))
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            raise WireError(
                f"cannot connect to {path}: {error.strerror}", remedy="is the virtual machine still running?"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; more than once does no harm."""
        self._socket.close()

    def send(self, value: Mapping[str, Any], *, deadline: float, prefix: bytes = b"") -> None:
        """Send one value as a line, with bytes before it where a protocol wants a mark there."""
        until = time.monotonic() + deadline
        rest = memoryview(prefix + json.dumps(value, separators=(",", ":")).encode() + b"\n")
        while rest:
            self._wait(select.POLLOUT, until, deadline)
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerClosed(f"{self._path}: {error.strerror}") from error

    def receive_line(self, *, deadline: float) -> bytes:
        """The next line without its end. Raises DeadlineMissed, and PeerClosed at the end of the stream."""
        until = time.monotonic() + deadline
        searched = 0
        while (end := self._received.find(b"\n", searched)) < 0:
            searched = len(self._received)
            if searched > LONGEST_LINE:
                raise WireError(f"{self._path}: a line is longer than {LONGEST_LINE} bytes")
            self._wait(select.POLLIN, until, deadline)
            try:
                part = self._socket.recv(1 << 18)
            except BlockingIOError:
                continue
            except OSError as error:
                raise PeerClosed(f"{self._path}: {error.strerror}") from error
            if not part:
                raise PeerClosed(f"{self._path}: the connection was closed", remedy="is the virtual machine running?")
            self._received += part
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def _wait(self, event: int, until: float, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise DeadlineMissed(f"{self._path}: no answer within {deadline:g} s")
