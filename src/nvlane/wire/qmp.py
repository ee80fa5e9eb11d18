"""QMP, the QEMU Machine Protocol: one JSON value a line, over a UNIX socket, in one thread.

::

    connect ──> greeting ──> qmp_capabilities ──> execute, execute, wait_event, ...

Every call has a deadline in seconds. Events that come while a reply is awaited are kept, so an event that
arrives before anybody waits for it is not lost. Where the process behind the socket is known, its end ends
every wait at once.

It is a small client of its own and not the asyncio one of the QEMU project: every use here is one question
and one answer, a process descriptor has to be waited for beside the socket, and importing asyncio costs more
than all of them. Protocol: docs/interop/qmp-spec.rst of QEMU.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

from nvlane.model.errors import WireError

Event = Mapping[str, Any]


class QmpError(WireError):
    """The peer refused a command. `kind` is its error class (GenericError, CommandNotFound, DeviceNotFound,
    ...), `words` are its own."""

    def __init__(self, command: str, kind: str, words: str) -> None:
        super().__init__(f"QMP {command}: {words}")
        self.command = command
        self.kind = kind
        self.words = words


class PeerGone(WireError):
    """The process behind the socket ended, or closed the connection."""


class Qmp:
    """A connection to one monitor. A monitor serves one client at a time: close it soon."""

    def __init__(self, path: str, peer: socket.socket, process: int | None) -> None:
        self._path = path
        self._socket = peer
        self._process = process  # a pidfd: readable when the process has ended (pidfd_open(2))
        self._received = bytearray()
        self._events: list[Event] = []
        self._number = 0
        self.version: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def connect(cls, path: str, *, deadline: float = 10.0, pid: int | None = None) -> Self:
        """Connect, take the greeting and enter command mode, within `deadline` seconds.

        `pid` is the process behind the socket, when the caller knows it. Raises PeerGone when nobody listens
        or that process ends, WireError when no greeting comes.
        """
        until = time.monotonic() + deadline
        with contextlib.ExitStack() as undo:
            process = None
            if pid is not None:
                try:
                    process = os.pidfd_open(pid)
                except ProcessLookupError as error:
                    raise PeerGone(f"the process {pid} behind {path} has ended") from error
                undo.callback(os.close, process)
            self = cls(path, undo.enter_context(_connected(path, deadline)), process)
            self._greet(until)
            undo.pop_all()
            return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()
        if self._process is not None:
            os.close(self._process)
            self._process = None

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, deadline: float = 30.0) -> Any:
        """The value that a command returns. Raises QmpError when it is refused."""
        until = time.monotonic() + deadline
        self._number += 1
        request: dict[str, Any] = {"execute": command, "id": self._number}
        if arguments:
            request["arguments"] = arguments
        self._send(request)
        while True:
            message = self._receive(until, f"a reply to {command}")
            if message.get("id") != self._number:
                continue  # the late reply to a command whose deadline was over
            if "error" in message:
                error = message["error"]
                raise QmpError(command, str(error.get("class", "")), str(error.get("desc", error)))
            return message.get("return")

    def wait_event(
        self, *names: str, match: Callable[[Mapping[str, Any]], bool] = lambda _: True, deadline: float
    ) -> Event:
        """The first event of one of these names whose `data` matches, come or still to come; others stay for
        later waits."""
        until = time.monotonic() + deadline
        seen = 0
        while True:
            for index in range(seen, len(self._events)):
                event = self._events[index]
                if event["event"] in names and match(event.get("data", {})):
                    return self._events.pop(index)
            seen = len(self._events)
            self._fill(until, f"the event {' or '.join(names)}")

    def events(self) -> Iterator[Event]:
        """The events that came and that nobody waited for, oldest first; each is given once."""
        while self._events:
            yield self._events.pop(0)

    def _greet(self, until: float) -> None:
        greeting = self._receive(until, "QMP's greeting (does another client hold the monitor?)")
        try:
            version = greeting["QMP"]["version"]["qemu"]
            self.version = (version["major"], version["minor"], version["micro"])
        except (KeyError, TypeError) as error:
            raise WireError(f"{self._path} does not speak QMP: {json.dumps(greeting)[:200]}") from error
        self.execute("qmp_capabilities", deadline=max(0.0, until - time.monotonic()))

    def _send(self, request: Mapping[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerGone(f"the process behind {self._path} has closed the connection") from error
        except BlockingIOError as error:  # the socket's own deadline: see _connected
            raise WireError(f"the process behind {self._path} takes no more commands") from error

    def _receive(self, until: float, what: str) -> dict[str, Any]:
        """The next message that is no event."""
        while True:
            message = self._next_message()
            if message is None:
                self._read(until, what)
            elif "event" in message:
                self._events.append(message)
            else:
                return message

    def _fill(self, until: float, what: str) -> None:
        """Take in messages until one more event is there. Replies that nobody waits for any more are
        dropped."""
        before = len(self._events)
        while len(self._events) == before:
            message = self._next_message()
            if message is None:
                self._read(until, what)
            elif "event" in message:
                self._events.append(message)

    def _next_message(self) -> dict[str, Any] | None:
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            return None
        self._received = rest
        try:
            message = json.loads(line)
        except ValueError as error:
            raise WireError(f"{self._path} sent something that is not JSON: {bytes(line[:200])!r}") from error
        if not isinstance(message, dict):
            raise WireError(f"{self._path} sent no JSON object: {bytes(line[:200])!r}")
        return message

    def _read(self, until: float, what: str) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if self._process is not None:
            poll.register(self._process, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(max(0.0, until - time.monotonic()) * 1000)}
        if self._socket.fileno() in ready:  # first: a process that ended may have left its last words there
            try:
                data = self._socket.recv(1 << 16)
            except ConnectionResetError:
                data = b""
            if not data:
                raise PeerGone(f"the process behind {self._path} closed the connection; {what} was awaited")
            self._received += data
        elif ready:
            raise PeerGone(f"the process behind {self._path} has ended; {what} was awaited")
        else:
            raise WireError(
                f"{self._path}: {what} did not come in time",
                remedy="look at the log beside the socket; the peer may be busy or stopped",
            )


def _connected(path: str, deadline: float) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # connect(2) on a UNIX socket waits while the queue of the listener is full, and heeds only this
        # deadline.
        timeout = struct.pack("ll", int(deadline), int(deadline % 1 * 1_000_000) or 1)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        peer.connect(path)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        peer.close()
        raise PeerGone(f"nobody listens on {path}") from error
    except OSError as error:
        peer.close()
        raise WireError(f"cannot connect to {path}: {error.strerror or error}") from error
    return peer
