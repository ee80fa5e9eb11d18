"""The QEMU guest agent: its commands, over the UNIX socket of its virtio-serial port.

Protocol: docs/interop/qemu-ga-ref of QEMU. It looks like QMP and is not: there is no greeting, no id and no event,
and an agent may still be answering somebody who has left, so a client first gets in step with it.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from nvlane.model.errors import WireError
from nvlane.wire.lines import DeadlineMissed, LineSocket

FIRST_LOOK = 0.02
LAST_LOOK = 0.5
"""Seconds between two looks at a running program: the first and the longest. The agent has no event for its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRan:
    """How a program ended: its status, or the signal that ended it (the other is None), and its output."""

    status: int | None
    signal: int | None
    stdout: str
    stderr: str


class GuestAgent(ABC):
    """An agent, by whatever way. Every wait has a deadline in seconds; every fault is a WireError."""

    #: Bytes of one guest-file-write; in base64 a quarter of a MiB, which every version of the agent takes.
    chunk: ClassVar[int] = 192 << 10

    @abstractmethod
    def close(self) -> None:
        """Let it go."""

    @abstractmethod
    def exchange(self, request: dict[str, Any], *, deadline: float) -> dict[str, Any]:
        """One request and the agent's whole reply."""

    def require(self, names: Sequence[str], *, deadline: float) -> None:
        """Raise WireError when one of these commands is blocked or unknown."""
        info = self.command("guest-info", deadline=deadline)
        enabled = {str(entry["name"]) for entry in info["supported_commands"] if entry["enabled"]}
        blocked = [name for name in names if name not in enabled]
        if blocked:
            raise WireError(
                f"the guest agent (version {info['version']}) does not allow {', '.join(blocked)}",
                remedy="take them out of the agent's block-rpcs (or add them to allow-rpcs) in the guest's"
                " /etc/qemu/qemu-ga.conf or /etc/sysconfig/qemu-ga, and restart it",
            )

    def write_file(self, path: str, content: bytes, *, deadline: float) -> None:
        """Make a file in the guest, or replace one."""
        handle = self.command("guest-file-open", deadline=deadline, path=path, mode="w")
        try:
            for start in range(0, len(content), self.chunk):
                part = base64.b64encode(content[start : start + self.chunk]).decode()
                self.command("guest-file-write", deadline=deadline, **{"handle": handle, "buf-b64": part})
        finally:
            self.command("guest-file-close", deadline=deadline, handle=handle)

    def run(self, argv: Sequence[str], *, input: str = "", deadline: float) -> AgentRan:
        """Run a program and wait for its end. A program that misses the deadline is left running."""
        until = time.monotonic() + deadline
        arguments: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        if input:
            arguments["input-data"] = base64.b64encode(input.encode()).decode()
        process = self.command("guest-exec", deadline=deadline, **arguments)["pid"]
        wait = FIRST_LOOK
        while True:
            state = self.command("guest-exec-status", deadline=deadline, pid=process)
            if state["exited"]:
                return AgentRan(
                    status=state.get("exitcode"),
                    signal=state.get("signal"),
                    stdout=_text(state.get("out-data", "")),
                    stderr=_text(state.get("err-data", "")),
                )
            if time.monotonic() > until:
                raise DeadlineMissed(f"{argv[0]} in the guest did not end within {deadline:g} s")
            time.sleep(wait)
            wait = min(wait * 1.5, LAST_LOOK)

    def command(self, name: str, *, deadline: float, **arguments: Any) -> Any:
        """One command and what it returns. Raises WireError with the agent's own words."""
        command: dict[str, Any] = {"execute": name}
        if arguments:
            command["arguments"] = arguments
        reply = self.exchange(command, deadline=deadline)
        match reply:
            case {"return": value}:
                return value
            case {"error": {"desc": str(words)}}:
                raise WireError(f"the guest agent refuses {name}: {words}")
            case _:
                raise WireError(f"the guest agent's answer to {name} is not understood: {str(reply)[:200]}")


class SocketAgent(GuestAgent):
    """One connection to the socket of the agent's port."""

    def __init__(self, path: Path, *, deadline: float) -> None:
        """Connect and get in step. Raises DeadlineMissed when no agent answers."""
        self._path = path
        self._lines = LineSocket(path)
        try:
            self._synchronise(deadline)
        except BaseException:
            self._lines.close()
            raise

    def close(self) -> None:
        """End the connection."""
        self._lines.close()

    def exchange(self, request: dict[str, Any], *, deadline: float) -> dict[str, Any]:
        self._lines.send(request, deadline=deadline)
        return _json(self._lines.receive_line(deadline=deadline))

    def _synchronise(self, deadline: float) -> None:
        token = secrets.randbits(31)
        command = {"execute": "guest-sync-delimited", "arguments": {"id": token}}
        until = time.monotonic() + deadline
        # 0xFF is no JSON: it makes the agent drop whatever half a request it has, and marks its answer.
        self._lines.send(command, deadline=deadline, prefix=b"\xff")
        while (left := until - time.monotonic()) > 0:
            try:
                line = self._lines.receive_line(deadline=left)
            except DeadlineMissed:
                break
            _, mark, answer = line.rpartition(b"\xff")
            if mark and _json(answer).get("return") == token:
                return
        raise DeadlineMissed(
            f"no QEMU guest agent answers on {self._path}",
            remedy="install and start qemu-guest-agent in the guest, or let nvlane use its own probe guest",
        )


def _json(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _text(encoded: str) -> str:
    return base64.b64decode(encoded).decode(errors="replace")
