"""QMP, the QEMU Machine Protocol: one JSON value a line, over a UNIX socket, in one thread.

::

    connect ──> greeting ──> qmp_capabilities ──> execute, execute, wait_event, ...

Every call has a deadline in seconds. Events that come while a reply is awaited are kept, so an event that arrives
before anybody waits for it is not lost. Where the process behind the socket is known, its end ends every wait.

It is a small client of its own and not the asyncio one of the QEMU project: every use here is one question and one
answer, a process has to be watched beside the socket, and importing asyncio alone takes longer than all of that.
Protocol: docs/interop/qmp-spec.rst of QEMU.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from nvlane.model.errors import WireError
from nvlane.wire.lines import DeadlineMissed, LineSocket

Event = Mapping[str, Any]


class QmpError(WireError):
    """The peer refused a command. `kind` is its error class (GenericError, CommandNotFound, DeviceNotFound, ...),
    `words` are its own."""

    def __init__(self, command: str, kind: str, words: str) -> None:
        super().__init__(f"QMP {command}: {words}")
        self.command = command
        self.kind = kind
        self.words = words


class Qmp:
    """A connection to one monitor. A monitor serves one client at a time: close it soon."""

    def __init__(self, path: str, peer: LineSocket) -> None:
        self._path = path
        self._peer = peer
        self._events: list[Event] = []
        self._number = 0
        self.version: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def connect(cls, path: str, *, deadline: float = 10.0, pid: int | None = None) -> Self:
        """Connect, take the greeting and enter command mode, within `deadline` seconds.

        `pid` is the process behind the socket, when the caller knows it. Raises PeerClosed when nobody listens or
        that process ends, WireError when no greeting comes.
        """
        until = time.monotonic() + deadline
        self = cls(path, LineSocket(Path(path), deadline=deadline, pid=pid))
        try:
            self._greet(until)
        except BaseException:
            self.close()
            raise
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; more than once does no harm."""
        self._peer.close()

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, deadline: float = 30.0) -> Any:
        """The value that a command returns. Raises QmpError when it is refused."""
        until = time.monotonic() + deadline
        self._number += 1
        request: dict[str, Any] = {"execute": command, "id": self._number}
        if arguments:
            request["arguments"] = arguments
        self._peer.send(request, deadline=deadline)
        while True:
            message = self._receive(until, f"the reply to {command}")
            if "event" in message:
                self._events.append(message)
            elif message.get("id") == self._number:
                return _value(command, message)
            # Anything else is the late reply to a command whose deadline was over.

    def wait_event(
        self, *names: str, match: Callable[[Mapping[str, Any]], bool] = lambda _: True, deadline: float
    ) -> Event:
        """The first event of one of these names whose `data` matches, come or still to come; others stay for later
        waits."""
        until = time.monotonic() + deadline
        seen = 0
        while True:
            for index in range(seen, len(self._events)):
                event = self._events[index]
                if event["event"] in names and match(event.get("data", {})):
                    return self._events.pop(index)
            seen = len(self._events)
            message = self._receive(until, f"the event {' or '.join(names)}")
            if "event" in message:
                self._events.append(message)

    def events(self) -> Iterator[Event]:
        """The events that came and that nobody waited for, oldest first; each is given once."""
        while self._events:
            yield self._events.pop(0)

    def _greet(self, until: float) -> None:
        greeting = self._receive(until, "QMP's greeting (does another client hold the monitor?)")
        while "event" in greeting:
            # Between accepting a connection and greeting it, QEMU still takes the monitor for one in command mode, as
            # the last client left it, and sends its events (monitor/qmp.c, monitor_qmp_event sets the mode).
            self._events.append(greeting)
            greeting = self._receive(until, "QMP's greeting")
        try:
            version = greeting["QMP"]["version"]["qemu"]
            self.version = (version["major"], version["minor"], version["micro"])
        except (KeyError, TypeError) as error:
            raise WireError(f"{self._path} does not speak QMP: {json.dumps(greeting)[:200]}") from error
        self.execute("qmp_capabilities", deadline=max(0.0, until - time.monotonic()))

    def _receive(self, until: float, what: str) -> dict[str, Any]:
        try:
            line = self._peer.receive_line(deadline=until - time.monotonic())
        except DeadlineMissed as error:
            raise DeadlineMissed(
                f"{self._path}: {what} did not come in time",
                remedy="look at the log beside the socket; the peer may be busy or stopped",
            ) from error
        try:
            message = json.loads(line)
        except ValueError as error:
            raise WireError(f"{self._path} sent something that is not JSON: {line[:200]!r}") from error
        if not isinstance(message, dict):
            raise WireError(f"{self._path} sent no JSON object: {line[:200]!r}")
        return message


def _value(command: str, message: Mapping[str, Any]) -> Any:
    if "error" in message:
        error = message["error"]
        raise QmpError(command, str(error.get("class", "")), str(error.get("desc", error)))
    return message.get("return")
