"""The in-guest probe through the QEMU guest agent: for guests that are not nvlane's own.

The probe is uploaded to a private directory, run once for every request, and removed at the end.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nvlane.model.errors import WireError
from nvlane.verify.guest import CALL_DEADLINE, Guest, answer_of
from nvlane.wire.guest_agent import GuestAgent

NEEDED = ("guest-file-open", "guest-file-write", "guest-file-close", "guest-exec", "guest-exec-status")
DIRECTORIES = ("/run", "/tmp", "/var/tmp", "/root")
"""Where a program may be put, in this order: distributions mount one or another of them noexec."""


class AgentGuest(Guest):
    """A guest whose QEMU guest agent answers; `probe` is the program to upload."""

    def __init__(self, agent: GuestAgent, probe: Path, *, deadline: float = CALL_DEADLINE) -> None:
        """Upload, within about `deadline` seconds each. Raises WireError when the agent has the commands blocked that
        are needed. The agent is closed with the guest."""
        self._place = ""
        self._agent = agent
        try:
            self._agent.require(NEEDED, deadline=deadline)
            self._upload(probe.read_bytes(), deadline)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the probe from the guest and end the connection."""
        try:
            self._remove()
        finally:
            self._agent.close()

    def put_tree(self, files: Iterable[tuple[str, Path]], *, deadline: float = 300.0) -> str:
        """Put programs with what they load into the guest, beside the probe and gone with it: their directory there.
        Each is a path in that directory (at most one directory deep) and the file to send."""
        place = f"{self._place}/tree"
        sent = {f"{place}/{name}": path for name, path in files}
        directories = sorted({target.rpartition("/")[0] for target in sent})
        # Each program that the agent runs is waited for by asking: one for all directories, and one for all files.
        self._agent.run(["mkdir", "-p", *directories], deadline=deadline)
        for target, path in sent.items():
            self._agent.write_file(target, path.read_bytes(), deadline=deadline)
        self._agent.run(["chmod", "0700", *sent], deadline=deadline)
        return place

    def call(self, method: str, *, deadline: float = CALL_DEADLINE, **params: Any) -> dict[str, Any]:
        """One run of the uploaded probe with one request on its standard input."""
        if not self._place:
            raise WireError(f"{method}: the probe is no longer in the guest")
        request = json.dumps({"id": 1, "method": method, "params": params}) + "\n"
        ran = self._agent.run([f"{self._place}/nvlane-probe", "once"], input=request, deadline=deadline)
        if ran.status != 0:
            how = f"signal {ran.signal}" if ran.status is None else f"status {ran.status}"
            raise WireError(
                f"nvlane-probe in the guest ended with {how}: {ran.stderr.strip()}",
                remedy="the guest's glibc must not be older than the one the probe was built with",
            )
        try:
            reply = json.loads(ran.stdout)
        except ValueError as error:
            raise WireError(f"nvlane-probe in the guest wrote no JSON: {ran.stdout[:200]!r}") from error
        return answer_of(method, reply)

    def _upload(self, program: bytes, deadline: float) -> None:
        """Put the probe where it can be run; whether it can is tried, not guessed."""
        said = "no directory could be made"
        for directory in DIRECTORIES:
            place = f"{directory}/nvlane-{secrets.token_hex(8)}"
            if self._agent.run(["mkdir", "-m", "0700", place], deadline=deadline).status != 0:
                continue
            self._place = place
            self._agent.write_file(f"{place}/nvlane-probe", program, deadline=deadline)
            self._agent.run(["chmod", "0700", f"{place}/nvlane-probe"], deadline=deadline)
            try:
                self.hello(deadline=deadline)
            except WireError as error:
                said = error.message
                self._remove()
            else:
                return
        raise WireError(
            f"nvlane-probe cannot be run in the guest from any of {', '.join(DIRECTORIES)}: {said}",
            remedy="one of them must not be mounted noexec, and the agent must be allowed to run programs there",
        )

    def _remove(self) -> None:
        if self._place:
            place, self._place = self._place, ""
            self._agent.run(["rm", "-rf", place], deadline=CALL_DEADLINE)
