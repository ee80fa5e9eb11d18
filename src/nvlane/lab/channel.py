"""Commands inside the lab, over ssh on the loopback address: OpenSSH's client outside, dropbear inside.

One master connection stays open (its key exchange costs 0.2 s under TCG); every command is then one more channel on it.
"""

from __future__ import annotations

import base64
import secrets
import shlex
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.lab.waiting import process_end, until
from nvlane.model.errors import CommandFailed, HostError

ALIAS = "nvlane-lab"
QUIET = 45.0
"""Seconds without a word of a command after which the lab is asked whether it is still there."""
PING_DEADLINE = 30.0
# A short sleep on each processor: one that lost its timer's interrupt runs what others wake, never a timer of its own.
_PING = 'for cpu in $(seq 0 $(($(nproc --all) - 1))); do taskset --cpu-list "$cpu" sleep 0.02 || exit; done'
_ENVIRONMENT = ". /etc/profile.d/nvlane.sh; "
_LAST_LINES = 40
_SUN_PATH = 107
_SUFFIX = 17
"""ssh binds its control socket under a name longer by this, and then renames it (OpenSSH, mux.c)."""


class LabStalled(HostError):
    """The lab hangs. Under TCG an emulated processor that runs nested guests may lose a timer interrupt for good (its
    local APIC keeps it in service): the lab's kernel then reports RCU stalls, and nothing but a new start helps. The
    other processors go on, so that commands may still be answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """How to reach one lab: the directory with its key and known host, and the forwarded port."""

    directory: Path
    port: int

    def _ssh(self, *options: str) -> list[str]:
        settings = {
            "IdentityFile": self.directory / "keys" / "user",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "UserKnownHostsFile": self.directory / "known_hosts",
            "StrictHostKeyChecking": "yes",
            "HostKeyAlias": ALIAS,
            "ControlPath": self._socket,
            "BatchMode": "yes",
            "LogLevel": "ERROR",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "none", *words, "-p", str(self.port), *options, "root@127.0.0.1"]

    @property
    def _socket(self) -> Path:
        return self.directory / "ssh"

    def open(self, *, timeout: float = 30.0) -> None:
        """Start the master connection. HostError when the lab's ssh server does not let us in by the deadline."""
        if len(str(self._socket)) + _SUFFIX > _SUN_PATH:
            raise HostError(
                f"{self._socket} is too long a path for a socket",
                remedy="set NVLANE_RUNTIME_DIR to a shorter directory",
            )
        self._socket.unlink(missing_ok=True)
        log = self.directory / "ssh.log"
        pid = process.spawn(self._ssh("-M", "-N"), log=log)
        (self.directory / "ssh.pid").write_text(str(pid))

        def up() -> bool:
            if process_end(pid, timeout=0):
                words = log.read_text(errors="replace").strip()
                raise HostError(f"ssh could not enter the lab: {words or 'it said nothing'}")
            return self._socket.exists()

        until(up, "the lab's ssh server", timeout=timeout)

    def close(self) -> None:
        """End the master connection, if there is one."""
        if self._socket.exists():
            process.run(self._ssh("-O", "exit"), check=False)

    def run(
        self, argv: Sequence[str], *, input: str | None = None, timeout: float | None = 120.0, check: bool = True
    ) -> process.Completed:
        """Run a command in the lab to its end. CommandFailed names the command as it stands in the lab."""
        job = secrets.token_hex(8)
        try:
            done = process.run([*self._ssh("-T"), _remote(argv, job)], input=input, timeout=timeout, check=False)
        except CommandFailed as error:
            self.end(job)
            raise CommandFailed(f"[lab] {shlex.join(argv)}", error.status, error.last_words) from error
        except KeyboardInterrupt:
            self.end(job)
            raise
        if check and done.returncode != 0:
            words = done.stderr.strip() or done.stdout
            raise CommandFailed(f"[lab] {shlex.join(argv)}", process.status_text(done.returncode), words)
        return process.Completed(argv=tuple(argv), returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def stream(self, argv: Sequence[str], *, patience: float | None = None, check: bool = True) -> Iterator[str]:
        """The lines of a command's stdout and stderr as they come. CommandFailed at its end on a bad status, and
        when it has not said a word for `patience` seconds."""
        job = secrets.token_hex(8)
        ended = False
        command = [*self._ssh("-T"), _remote(argv, job)]
        last: deque[str] = deque(maxlen=_LAST_LINES)
        heard = time.monotonic()

        def on_quiet() -> None:
            self.ping()
            if patience is not None and time.monotonic() - heard > patience:
                raise CommandFailed(shlex.join(command), f"no word for {patience:g} s", "\n".join(last))

        try:
            for line in process.stream(command, check=check, quiet=QUIET, on_quiet=on_quiet):
                last.append(line)
                yield line
                heard = time.monotonic()
            ended = True
        except LabStalled:
            ended = True  # there is nobody left to end it for us
            raise
        except CommandFailed as error:
            raise CommandFailed(f"[lab] {shlex.join(argv)}", error.status, error.last_words) from error
        finally:
            if not ended:
                self.end(job)

    def ping(self, *, timeout: float = PING_DEADLINE) -> None:
        """Raises LabStalled when the lab does not answer by then, or one of its processors has lost its timer."""
        try:
            process.run([*self._ssh("-T"), _PING], timeout=timeout)
        except CommandFailed as error:
            raise LabStalled(
                f"the lab does not answer any more ({error.status})",
                remedy="nvlane lab down, then nvlane lab up; its console.log has the last words",
            ) from error

    def foreground(self, argv: Sequence[str], *, terminal: bool | None = None) -> int:
        """Run a command on our own stdin, stdout and stderr; its exit status. No words: a login shell.

        On a terminal the lab has one too, and Ctrl-C is just a key. Without one, a signal here ends the command there.
        """
        wants_terminal = sys.stdin.isatty() and sys.stdout.isatty() if terminal is None else terminal
        if wants_terminal or not argv:
            command = [_ENVIRONMENT + shlex.join(["exec", *argv])] if argv else []
            return process.foreground([*self._ssh("-tt"), *command])
        job = secrets.token_hex(8)
        status = process.foreground([*self._ssh("-T"), _remote(argv, job)])
        if status in (128 + signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGHUP, 255):
            self.end(job)
        return status

    def put(self, content: bytes, path: str, *, mode: int = 0o644) -> None:
        """Write a file in the lab."""
        script = 'base64 -d > "$1" && chmod "$2" "$1"'
        self.run(["sh", "-c", script, "put", path, f"{mode:o}"], input=base64.b64encode(content).decode())

    def get(self, path: str) -> bytes:
        """Read a file of the lab."""
        return base64.b64decode(self.run(["base64", path]).stdout)

    def end(self, job: str) -> None:
        """End the process group of a command whose caller has gone away."""
        script = '[ ! -e "$1" ] || kill -s TERM -- "-$(cat "$1")"'
        words = shlex.join(["sh", "-c", script, "end", f"/run/lab/jobs/{job}"])
        try:
            process.run([*self._ssh("-T"), words], check=False, timeout=20)
        except CommandFailed:
            return  # a lab that does not answer runs nothing that could be ended


def _remote(argv: Sequence[str], job: str) -> str:
    """One line for the lab's shell: run the command as leader of a group of its own, note its process id, pass on its
    status. The shell stays, because ssh says 255 of whatever a signal killed, and a shell says 128 + signal."""
    # Without `<&0` a command in the background would read nothing.
    return f"{_ENVIRONMENT}setsid -w {shlex.join(argv)} <&0 & echo $! >/run/lab/jobs/{job}; wait $!"
