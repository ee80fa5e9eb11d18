"""JSON values over a UNIX socket: one a line, as the in-guest probe and the QEMU guest agent speak, or one after the
other, as JSON-RPC does.

Synchronous; every wait has a deadline, given in seconds from now.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
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

    def __init__(self, path: Path, *, deadline: float = 10.0, pid: int | None = None) -> None:
        """Connect. Raises PeerClosed when nobody listens there, WireError when it cannot be done within the deadline.

        `pid` is the process at the other end, where the caller knows it: its end ends every wait (pidfd_open(2)).
        """
        self._path = path
        self._received = bytearray()
        try:
            self._process = None if pid is None else os.pidfd_open(pid)
        except ProcessLookupError as error:
            raise PeerClosed(f"{path}: the process {pid} has ended") from error
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # While the listener's queue is full connect(2) waits, and only this deadline ends that (unix(7)).
            seconds, rest = divmod(deadline, 1)
            timeout = struct.pack("ll", int(seconds), max(1, int(rest * 1_000_000)))
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            self._socket.connect(str(path))
            self._socket.setblocking(False)
        except OSError as error:
            self.close()
            nobody = isinstance(error, FileNotFoundError | ConnectionRefusedError)
            raise (PeerClosed if nobody else WireError)(
                f"cannot connect to {path}: {error.strerror or error}", remedy="is the virtual machine still running?"
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
        if self._process is not None:
            os.close(self._process)
            self._process = None

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
            self._receive_more(until, deadline)
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return line

    def receive_value(self, *, deadline: float) -> Any:
        """The next JSON object, wherever its peer ends a line. Raises as receive_line does, and WireError for what is
        no JSON."""
        until = time.monotonic() + deadline
        while True:
            # A part of a value is tried with each packet that comes (256 KiB); the answers of a target are a few.
            text = self._received.decode(errors="replace").lstrip()
            try:
                value, end = json.JSONDecoder().raw_decode(text)
            except ValueError as error:
                if text and not text.startswith("{"):
                    raise WireError(f"{self._path} sent no JSON object: {text[:200]!r}") from error
            else:
                self._received = bytearray(text[end:].encode())
                return value
            self._receive_more(until, deadline)

    def _receive_more(self, until: float, deadline: float) -> None:
        """Wait for bytes and add what came."""
        if len(self._received) > LONGEST_LINE:
            raise WireError(f"{self._path}: an answer is longer than {LONGEST_LINE} bytes")
        self._wait(select.POLLIN, until, deadline)
        try:
            part = self._socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerClosed(f"{self._path}: {error.strerror}") from error
        if not part:
            raise PeerClosed(f"{self._path}: the connection was closed", remedy="is the process behind it running?")
        self._received += part

    def _wait(self, event: int, until: float, deadline: float) -> None:
        poll = select.poll()
        poll.register(self._socket, event)
        if self._process is not None:
            poll.register(self._process, select.POLLIN)
        left = until - time.monotonic()
        ready = [descriptor for descriptor, _ in poll.poll(left * 1000)] if left > 0 else []
        if not ready:
            raise DeadlineMissed(f"{self._path}: no answer within {deadline:g} s")
        # The socket goes first: a process that has ended may have left its last words there.
        if self._socket.fileno() not in ready:
            raise PeerClosed(f"{self._path}: the process at the other end has ended")
