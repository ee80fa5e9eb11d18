"""What a running guest can be asked, by whichever way it is reached.

Two transports: `verify.probe` (the probe on its own port) and `verify.agent` (through the QEMU guest agent). Both
answer the same requests, which `crates/probe/src/methods.rs` lists; the parameters and answers stand beside their code.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from nvlane.model.errors import WireError

CALL_DEADLINE = 30.0
"""Seconds for a request that reads a few files, even in a guest whose processor is emulated."""


class GuestFault(WireError):
    """The guest understood and could not do it. `code` is the probe's kind of failure, `errno` the kernel's."""

    def __init__(self, method: str, code: str, message: str, errno: int | None) -> None:
        super().__init__(f"in the guest, {method}: {message}")
        self.method = method
        self.code = code
        self.errno = errno


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who answers: the probe's version, the guest's kernel release and boot id, seconds since that kernel started."""

    version: str
    kernel: str
    boot_id: str
    is_probe_guest: bool
    uptime_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a program in the guest ended: its status, or the signal that ended it (the other is None), and its output."""

    status: int | None
    signal: int | None
    stdout: str
    stderr: str
    truncated: bool


class Guest(ABC):
    """One guest. Every call raises WireError when the guest cannot be reached or answers out of protocol, and
    GuestFault when it says no."""

    @abstractmethod
    def call(self, method: str, *, deadline: float = CALL_DEADLINE, **params: Any) -> dict[str, Any]:
        """One request and its answer, within `deadline` seconds."""

    @abstractmethod
    def close(self) -> None:
        """Let the guest go, and leave nothing in it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def hello(self, *, deadline: float = CALL_DEADLINE) -> Hello:
        """Who answers."""
        answer = self.call("hello", deadline=deadline)
        try:
            return Hello(
                version=str(answer["version"]),
                kernel=str(answer["kernel"]),
                boot_id=str(answer["boot_id"]),
                is_probe_guest=bool(answer["pid1"]),
                uptime_seconds=float(answer["uptime_seconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise WireError(f"the guest's hello is not understood ({error}): {answer}") from error

    def inventory(self) -> dict[str, Any]:
        """Everything the guest sees; the shape is `Inventory` in crates/probe/src/inventory/mod.rs."""
        return self.call("inventory")

    def resolve(self, by: Mapping[str, Any], *, deadline: float = CALL_DEADLINE) -> str:
        """The device's path, by `pci`, `scsi_target`, `scsi_lun`, `serial`, `nvme_serial`, `nsid`, `name` or `nvdimm`.

        The guest waits for the device for `deadline` seconds.
        """
        answer = self.call("resolve", deadline=deadline + CALL_DEADLINE, by=dict(by), deadline_ms=int(deadline * 1000))
        return str(answer["path"])

    def digest(self, device: str, ranges: Sequence[tuple[int, int]], *, deadline: float = 300.0) -> str:
        """SHA-256 in hex over byte ranges (offset, length), read past the guest's page cache."""
        parts = [list(part) for part in ranges]
        return str(self.call("digest", deadline=deadline, device=device, ranges=parts)["sha256"])

    def run(self, argv: Sequence[str], *, stdin: str = "", timeout: float = 60.0) -> Ran:
        """Run a program in the guest; past `timeout` seconds it is killed there, with GuestFault."""
        answer = self.call(
            "exec", deadline=timeout + CALL_DEADLINE, argv=list(argv), stdin=stdin, timeout_ms=int(timeout * 1000)
        )
        return Ran(**answer)


def answer_of(method: str, reply: Mapping[str, Any]) -> dict[str, Any]:
    """The answer in a reply of the probe. Raises GuestFault for an error, WireError for what is neither."""
    match reply:
        case {"ok": dict(answer)}:
            return answer
        case {"error": {"code": str(code), "message": str(message), **rest}}:
            errno = rest.get("errno")
            raise GuestFault(method, code, message, errno if isinstance(errno, int) else None)
        case _:
            raise WireError(f"the guest's reply to {method} is not understood: {str(reply)[:200]}")
