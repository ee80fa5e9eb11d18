"""The one module that starts processes.

`run` waits for a command and gives its output; `spawn` starts a daemon that outlives nvlane; `become` ends nvlane by
running a program in its place.
Both take argument lists only, never a shell.
"""

from __future__ import annotations

import os
import resource
import select
import shlex
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from nvlane.model.errors import CommandFailed, HostError


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """What a finished command left: its status (negative: killed by that signal) and its output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


def status_text(returncode: int) -> str:
    """'exit status 2', or 'killed by SIGSEGV' for a negative code."""
    if returncode >= 0:
        return f"exit status {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def run(
    argv: Sequence[str],
    *,
    input: str | None = None,
    timeout: float | None = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    room: int = -1,
) -> Completed:
    """Run a command to its end. Raises CommandFailed on a status other than 0 (if `check`) or a deadline
    (`timeout`, in seconds), HostError when there is no such program. `room` is for one that loses its last words when
    they are not taken at once: the bytes that a pipe holds for it (F_SETPIPE_SZ)."""
    command = shlex.join(argv)
    try:
        done = subprocess.run(
            list(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=None if env is None else {**os.environ, **env},
            cwd=cwd,
            check=False,
            pipesize=room,
        )
    except FileNotFoundError as error:
        raise HostError(f"no such program: {argv[0]}", remedy=f"install the package that has {argv[0]}") from error
    except PermissionError as error:
        raise HostError(f"not allowed to run {argv[0]}") from error
    except subprocess.TimeoutExpired as error:
        words = error.stderr.decode(errors="replace") if isinstance(error.stderr, bytes) else (error.stderr or "")
        raise CommandFailed(command, f"no end within {timeout:g} s", words) from error
    if check and done.returncode != 0:
        raise CommandFailed(command, status_text(done.returncode), done.stderr or done.stdout)
    return Completed(argv=tuple(argv), returncode=done.returncode, stdout=done.stdout, stderr=done.stderr)


def stream(
    argv: Sequence[str],
    *,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    quiet: float | None = None,
    on_quiet: Callable[[], None] = lambda: None,
) -> Iterator[str]:
    """The lines of a command's stdout and stderr, merged, as they come, without their line ends.

    Whenever nothing has come for `quiet` seconds, `on_quiet` is called; what it raises ends the command.

    Past the deadline (`timeout`, in seconds), or when the caller stops reading, the command and the children it made
    are ended: SIGTERM, then SIGKILL. Raises CommandFailed with the last lines on a status other than 0 (if `check`).
    """
    command = shlex.join(argv)
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=None if env is None else {**os.environ, **env},
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostError(f"no such program: {argv[0]}", remedy=f"install the package that has {argv[0]}") from error
    assert child.stdout is not None
    last: deque[str] = deque(maxlen=40)
    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        with child.stdout:
            for line in _lines(child.stdout.fileno(), deadline, quiet, on_quiet):
                last.append(line)
                yield line
        remaining = None if deadline is None else max(0.1, deadline - time.monotonic())
        returncode = child.wait(remaining)
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(command, f"no end within {timeout:g} s", "\n".join(last)) from error
    finally:
        _end(child)
    if check and returncode != 0:
        raise CommandFailed(command, status_text(returncode), "\n".join(last))


def _lines(descriptor: int, deadline: float | None, quiet: float | None, on_quiet: Callable[[], None]) -> Iterator[str]:
    rest = b""
    while True:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        patience = min((seconds for seconds in (left, quiet) if seconds is not None), default=None)
        if not select.select([descriptor], [], [], patience)[0]:
            if patience == quiet:
                on_quiet()
            continue
        data = os.read(descriptor, 65536)
        if not data:
            break
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a command that leads a group of its own, with the group: some (mmdebstrap) wait for their children first."""
    if child.poll() is not None:
        return
    os.killpg(child.pid, signal.SIGTERM)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # nobody of the group is left, as it should be


def foreground(argv: Sequence[str]) -> int:
    """Run a command on our own stdin, stdout and stderr; its exit status (128 + signal, as a shell has it).

    Signals that would end us are the command's business while it runs: it gets them, and we wait for what it makes of
    them. (A terminal's Ctrl-C reaches it anyhow; once more does no harm.)
    """
    return _attended(argv, None, None)[0]


def attended(argv: Sequence[str], *, input: str, capture: bool) -> tuple[int, str]:
    """Like `foreground`, with a stdin of its own; its status and, with `capture`, its stdout in place of ours."""
    return _attended(argv, input, subprocess.PIPE if capture else None)


def _attended(argv: Sequence[str], input: str | None, stdout: int | None) -> tuple[int, str]:
    children: list[subprocess.Popen[str]] = []

    def pass_on(number: int, _frame: object) -> None:
        for child in children:
            child.send_signal(number)

    stdin = None if input is None else subprocess.PIPE
    # Handlers, not SIG_IGN: exec resets a handler, while the command would inherit "ignore".
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        child = subprocess.Popen(list(argv), stdin=stdin, stdout=stdout, text=True, errors="replace")
        children.append(child)
        said, _ = child.communicate(input)
    except FileNotFoundError as error:
        raise HostError(f"no such program: {argv[0]}", remedy=f"install the package that has {argv[0]}") from error
    except PermissionError as error:
        raise HostError(f"not allowed to run {argv[0]}") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    status = child.returncode
    return (status if status >= 0 else 128 - status), said or ""


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    fds: Mapping[int, int] | None = None,
    memlock: int | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Start a daemon in its own session and return its process id.

    Its output goes to `log` (mode 0600). `fds` maps a descriptor number in the child to one of ours, so that
    a socket that already listens is handed over and nobody waits for it to appear. `memlock` is the
    locked-memory limit in bytes (RLIMIT_MEMLOCK), which the child inherits. When this returns, the process can be
    found by its environment.
    """
    # High descriptors first: a target number must never hit a source that is still to be moved.
    high = {child: os.dup(ours) for child, ours in (fds or {}).items()}
    moved: dict[int, int] = {}
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        import fcntl

        for child, ours in high.items():
            moved[child] = fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, 200)
            actions.append((os.POSIX_SPAWN_DUP2, moved[child], child))
        before = os.umask(0o077)
        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        try:
            if memlock is not None:
                _raise_memlock(memlock, soft, hard)
            pid = os.posix_spawnp(
                argv[0],
                list(argv),
                {**os.environ, **(env or {})},
                file_actions=actions,
                setsid=True,
                setsigdef=[signal.SIGPIPE, signal.SIGINT],
            )
        except FileNotFoundError as error:
            raise HostError(f"no such program: {argv[0]}") from error
        finally:
            os.umask(before)
            if memlock is not None:
                # The hard limit as well: a libvirtd that is started later would have ours, and libvirt raises no limit
                # of a domain whose hard one is high enough (virProcessGetMaxMemLock).
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))
    finally:
        for descriptor in (*high.values(), *moved.values()):
            os.close(descriptor)
    _wait_for_environment(pid)
    return pid


def _wait_for_environment(pid: int, deadline: float = 5.0) -> None:
    """Wait until /proc/PID/environ shows what the process was started with.

    vfork(2) lets the parent go on when the child gives up the old memory, and fs/exec.c fills the new one in later:
    on a busy machine /proc shows no environment for a while, and whoever looks for a process by it finds none.
    """
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/environ").read_bytes() or _state(pid) == "Z":
                return
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return  # it ended already, or it hides its environment
        time.sleep(0.0005)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _raise_memlock(wanted: int, soft: int, hard: int) -> None:
    infinite = resource.RLIM_INFINITY
    if soft == infinite or soft >= wanted:
        return
    new_hard = hard if hard == infinite or hard >= wanted else wanted
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (wanted, new_hard))
    except (ValueError, PermissionError) as error:
        raise HostError(
            f"the locked-memory limit is {hard} bytes and {wanted} are needed",
            remedy="raise it (LimitMEMLOCK= of the service, or limits.d), or run as root",
        ) from error


def become(argv: Sequence[str]) -> NoReturn:
    """Run a program, named by its absolute path, in the place of this process. Raises HostError when it cannot be."""
    try:
        os.execv(argv[0], list(argv))
    except OSError as error:
        raise HostError(
            f"cannot run {argv[0]}: {error.strerror}", remedy="in a checkout, make install-tools builds it"
        ) from error
