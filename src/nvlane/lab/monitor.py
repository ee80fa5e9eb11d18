"""The outer machine's QMP monitor: one command, one answer, synchronously."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvlane.model.errors import WireError

_DEADLINE = 20.0


class Monitor:
    """A QMP session on a UNIX socket. Every failure of the peer is a WireError."""

    def __init__(self, path: Path, *, timeout: float = _DEADLINE) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise WireError(f"the lab's monitor {path} does not answer: {error}") from error
        self._reader = self._socket.makefile("r", encoding="utf-8")
        self.events: list[dict[str, Any]] = []
        self._read()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Run `command`; its `return` value. WireError when QEMU answers with an error."""
        request = {"execute": command, "arguments": {name.replace("_", "-"): value for name, value in arguments.items()}}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise WireError(f"the lab's monitor {self._path} is gone: {error}") from error
        while True:
            answer = self._read()
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise WireError(f"the lab's QEMU refused {command}: {answer['error'].get('desc')}")

    def wait_event(self, name: str, **match: object) -> dict[str, Any]:
        """The next event `name` whose data has all of `match`, also one that came before. WireError at the deadline."""
        while True:
            for event in self.events:
                if event["event"] == name and match.items() <= event.get("data", {}).items():
                    self.events.remove(event)
                    return event
            self._read()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._reader.readline()
        except OSError as error:
            raise WireError(f"the lab's monitor {self._path} said nothing in time: {error}") from error
        if not line:
            raise WireError(f"the lab's monitor {self._path} hung up")
        answer: dict[str, Any] = json.loads(line)
        if "event" in answer:
            self.events.append(answer)
        return answer

    def close(self) -> None:
        self._reader.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
