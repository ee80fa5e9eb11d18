"""The in-guest probe on its own virtio-serial port, whose host side is a UNIX socket of QEMU's."""

from __future__ import annotations

import itertools
import json
import secrets
import time
from pathlib import Path
from typing import Any

from nvlane.model.errors import WireError
from nvlane.verify.guest import CALL_DEADLINE, Guest, Hello, answer_of
from nvlane.wire.lines import DeadlineMissed, LineSocket

KNOCK_AGAIN = 1.0
"""Seconds after which an unanswered hello is sent again: on a serial line, what comes too early is lost."""


class ProbeGuest(Guest):
    """A guest with nvlane-probe behind `socket_path`. One client at a time: QEMU lets a second one wait."""

    def __init__(self, socket_path: Path) -> None:
        self._lines = LineSocket(socket_path)
        self._path = socket_path
        # An earlier client may have left before its answers came; no id of ours is one of its.
        session = secrets.token_hex(4)
        self._ids = (f"{session}-{number}" for number in itertools.count(1))
        self._is_in_step = False

    def close(self) -> None:
        """End the connection; the probe waits for the next one."""
        self._lines.close()

    def wait_until_up(self, *, deadline: float) -> Hello:
        """Wait until the guest answers. Raises DeadlineMissed after `deadline` seconds, PeerClosed when QEMU ends."""
        until = time.monotonic() + deadline
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise DeadlineMissed(
                    f"the guest behind {self._path} did not come up within {deadline:g} s",
                    remedy="read the guest's console.log beside that socket",
                )
            try:
                return self.hello(deadline=min(left, KNOCK_AGAIN))
            except DeadlineMissed:
                continue

    def call(self, method: str, *, deadline: float = CALL_DEADLINE, **params: Any) -> dict[str, Any]:
        """One request and its answer. After a missed deadline the next call is in step again: late answers are
        known by their ids and dropped."""
        until = time.monotonic() + deadline
        number = next(self._ids)
        self._lines.send({"id": number, "method": method, "params": params}, deadline=deadline)
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise DeadlineMissed(f"{self._path}: no answer to {method} within {deadline:g} s")
            reply = self._value(self._lines.receive_line(deadline=left))
            if reply.get("id") == number:
                self._is_in_step = True
                return answer_of(method, reply)

    def _value(self, line: bytes) -> dict[str, Any]:
        """A line as JSON. Up to our first answer a line may be the rest of one that was meant for somebody else."""
        try:
            value = json.loads(line)
        except ValueError as error:
            if self._is_in_step:
                raise WireError(f"{self._path}: not JSON: {line[:100]!r}") from error
            return {}
        return value if isinstance(value, dict) else {}
