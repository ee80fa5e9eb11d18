"""Starting processes that outlive nvlane, QEMU and vhost-user targets, and ending exactly those again.

::

    nvlane --(1) listens on--> UNIX sockets, 0600, in a directory, 0700
       |
       +----(2) spawns---> the process: those sockets are its descriptors 10, 11, ...; NVLANE_TOKEN in its environment
       +----(3) journals-> pid and start time
       +----(4) waits----> ready(), with a deadline

The token is drawn and journaled before the process exists. Whoever has it in its environment is ours, wherever nvlane
was killed in between; a process that only has the same id, or that names our paths on its command line, is not.
What to start is the business of a `Launcher`: one for QEMU, one for each kind of target.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from nvlane.apply.operations.directories import make_directories, missing_directories, remove_directories
from nvlane.apply.operations.found import FoundNothing, FoundProcess, MadeProcess
from nvlane.apply.operations.operation import PUT_BACK, Fate, Idempotent, Keep, Outcome, already, failed
from nvlane.apply.operations.processes import TOKEN_NAME, boot_id, find_by_token, start_time_of
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.migrate_step import ReceiveMachine
from nvlane.plan.step import Inverse, StartMachine, StartTarget, StopMachine, StopTarget

#: The first descriptor number of a handed-over socket; 0 to 2 are the standard ones, the rest leaves room.
FIRST_DESCRIPTOR: Final = 10
#: Seconds until a process must be ready.
READY_DEADLINE: Final = 60.0
#: Seconds for the words of a polite request: its monitor serves one client, and that may be a person.
ASK_DEADLINE: Final = 2.0
#: Seconds from the request to SIGTERM, from SIGTERM to SIGKILL, and from SIGKILL to giving up. A guest with hundreds of
#: GiB of pinned memory takes its time to end, whatever ends it.
QUIT_DEADLINE: Final = 10.0
TERM_DEADLINE: Final = 20.0
KILL_DEADLINE: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start, apart from its arguments. `sockets`: name -> path; `files`: everything else that the process or
    its launcher leaves (log, console log), removed when it is stopped; `memlock` in bytes."""

    name: str
    directory: str
    log: str
    sockets: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    memlock: int | None = None


class Launcher(Protocol):
    """How to start one kind of process.

    `argv` gets the number that each socket of `launch().sockets` has in the child, by name. `ready` returns when the
    process answers; it raises HostError (with the last words of the log) when it ended or the deadline (seconds) is
    over. `quit` asks it politely to end, and returns at once; any failure of it may be raised as NvlaneError or
    OSError: the caller goes on with SIGTERM.
    """

    def launch(self, step: Any) -> Launch: ...
    def argv(self, step: Any, descriptors: Mapping[str, int]) -> tuple[str, ...]: ...
    def ready(self, step: Any, pid: int, deadline: float) -> None: ...
    def quit(self, directory: str, name: str, deadline: float) -> None: ...


def _found(host: Host, launch: Launch) -> FoundProcess:
    return FoundProcess(
        missing=missing_directories(host, launch.directory),
        stale=tuple(path for path in launch.sockets.values() if host.exists(path)),
        token=secrets.token_hex(16),
    )


def start_process(
    host: Host, launcher: Launcher, step: Any, token: str, keep: Keep, *, before: Callable[[], None] = lambda: None
) -> None:
    """Listen on the sockets, start the process with them, and wait until it is ready. `before` runs between the first
    and the second: whoever served those paths until now ends there, and whoever connects meanwhile waits for us."""
    launch = launcher.launch(step)
    ours: dict[str, int] = {}
    try:
        for name, path in launch.sockets.items():
            ours[name] = host.listen(path)
        before()
        numbers = {name: FIRST_DESCRIPTOR + index for index, name in enumerate(ours)}
        pid = host.spawn(
            launcher.argv(step, numbers),
            log=launch.log,
            descriptors={numbers[name]: ours[name] for name in ours},
            environment={TOKEN_NAME: token},
            memlock=launch.memlock,
        )
    finally:
        for descriptor in ours.values():
            host.close(descriptor)
    start_time = start_time_of(host, pid)
    if start_time is not None:
        keep(MadeProcess(pid=pid, start_time=start_time, boot_id=boot_id(host)))
    # A process that has ended already is for ready() to tell, which knows where its last words are.
    launcher.ready(step, pid, READY_DEADLINE)


def _check(launch: Launch, found: FoundProcess) -> None:
    if found.stale:
        raise HostError(
            f"cannot start {launch.name}: {found.stale[0]} is there already",
            remedy="stop what uses it (nvlane status; nvlane restore), or remove it when nothing does",
        )


class StartMachineOperation:
    """QEMU, and a second one that waits for the machine. `launcher` is what knows its arguments."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def observe(self, host: Host, step: StartMachine | ReceiveMachine) -> FoundProcess:
        return _found(host, self._launcher.launch(step))

    def check(self, host: Host, step: StartMachine | ReceiveMachine, found: FoundProcess) -> None:  # noqa: ARG002
        _check(self._launcher.launch(step), found)

    def perform(self, host: Host, step: StartMachine | ReceiveMachine, found: FoundProcess, keep: Keep) -> None:
        make_directories(host, found.missing)
        start_process(host, self._launcher, step, found.token, keep)

    def inverse(
        self, step: StartMachine | ReceiveMachine, found: FoundProcess, result: MadeProcess | None
    ) -> Inverse | None:
        launch = self._launcher.launch(step)
        return StopMachine(
            name=launch.name,
            directory=launch.directory,
            token=found.token,
            files=(*launch.sockets.values(), launch.log, *launch.files),
            made=found.missing,
            pid=result.pid if result else 0,
            start_time=result.start_time if result else 0,
            boot_id=result.boot_id if result else "",
        )


class StartTargetOperation:
    """A vhost-user target; `launchers` has one entry for each engine, by name."""

    def __init__(self, launchers: Mapping[str, Launcher]) -> None:
        self._launchers = launchers

    def _launcher(self, step: StartTarget) -> Launcher:
        launcher = self._launchers.get(step.engine)
        if launcher is None:
            known = ", ".join(sorted(self._launchers)) or "none"
            raise HostError(f"no launcher for the target engine '{step.engine}' (there are: {known})")
        return launcher

    def observe(self, host: Host, step: StartTarget) -> FoundProcess:
        return _found(host, self._launcher(step).launch(step))

    def check(self, host: Host, step: StartTarget, found: FoundProcess) -> None:  # noqa: ARG002
        _check(self._launcher(step).launch(step), found)

    def perform(self, host: Host, step: StartTarget, found: FoundProcess, keep: Keep) -> None:
        make_directories(host, found.missing)
        start_process(host, self._launcher(step), step, found.token, keep)

    def inverse(self, step: StartTarget, found: FoundProcess, result: MadeProcess | None) -> Inverse | None:
        launch = self._launcher(step).launch(step)
        return StopTarget(
            name=launch.name,
            directory=launch.directory,
            token=found.token,
            files=(*launch.sockets.values(), launch.log, *launch.files),
            made=found.missing,
            pid=result.pid if result else 0,
            start_time=result.start_time if result else 0,
            boot_id=result.boot_id if result else "",
        )


class StopReversal(Idempotent):
    """Ends a machine or a target. `launcher` asks politely first; without one SIGTERM is polite enough (a storage
    daemon closes its nodes on it)."""

    def __init__(self, launcher: Launcher | None = None) -> None:
        self._launcher = launcher

    def observe(self, host: Host, inverse: StopMachine | StopTarget) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: StopMachine | StopTarget, found: FoundNothing) -> Outcome:  # noqa: ARG002
        processes = living(host, inverse)
        for process in processes:
            if not self._end(host, inverse, process):
                return failed(
                    f"{inverse.name} (process {process.pid}) does not end, not even by SIGKILL",
                    remedy=f"see what the kernel waits for: cat /proc/{process.pid}/stack; then nvlane restore",
                )
        # A target that was killed leaves the sockets that it made for controllers of its own.
        left = sockets_in(host, inverse.directory) if isinstance(inverse, StopTarget) else ()
        removed = [path for path in dict.fromkeys((*inverse.files, *left)) if _remove(host, path)]
        directories = remove_directories(host, inverse.made)
        if directories.fate is Fate.KEPT:
            return directories
        return PUT_BACK if processes or removed else already("it does not run, and its files are gone")

    def _end(self, host: Host, inverse: StopMachine | StopTarget, process: MadeProcess) -> bool:
        asked = self._asked(inverse)
        if asked and host.wait_end(process.pid, process.start_time, deadline=QUIT_DEADLINE):
            return True
        return end_process(host, process)

    def _asked(self, inverse: StopMachine | StopTarget) -> bool:
        if self._launcher is None:
            return False
        try:
            self._launcher.quit(inverse.directory, inverse.name, ASK_DEADLINE)
        except (NvlaneError, OSError):
            return False  # it does not answer, or its socket is gone: a signal needs neither
        return True


def living(host: Host, inverse: StopMachine | StopTarget) -> tuple[MadeProcess, ...]:
    """The processes that a start left and that still live.

    That is the recorded process, if it is still the same one, and whoever else has the token: the tool may have died
    between starting it and writing its id down. After a reboot no process has it.
    """
    processes = find_by_token(host, inverse.token)
    same_boot = inverse.pid and inverse.boot_id == boot_id(host)
    if same_boot and start_time_of(host, inverse.pid) == inverse.start_time:
        recorded = MadeProcess(pid=inverse.pid, start_time=inverse.start_time, boot_id=inverse.boot_id)
        if recorded not in processes and not _readable(host, inverse.pid):
            return (recorded, *processes)
    return processes


def end_process(host: Host, process: MadeProcess) -> bool:
    """SIGTERM, then SIGKILL; whether it has ended."""
    for number, deadline in ((signal.SIGTERM, TERM_DEADLINE), (signal.SIGKILL, KILL_DEADLINE)):
        sent = host.signal(process.pid, process.start_time, number)
        if not sent or host.wait_end(process.pid, process.start_time, deadline=deadline):
            return True
    return False


def sockets_in(host: Host, directory: str) -> tuple[str, ...]:
    """The sockets that stand in a directory; () when it is gone."""
    try:
        paths = [f"{directory}/{name}" for name in host.listdir(directory)]
        return tuple(path for path in paths if host.stat(path).kind == "socket")
    except FileNotFoundError:
        return ()


def _readable(host: Host, pid: int) -> bool:
    # A process that made itself undumpable (prctl(2), PR_SET_DUMPABLE) hides its environment from its own user, too.
    try:
        host.read_bytes(f"/proc/{pid}/environ")
    except (PermissionError, FileNotFoundError, ProcessLookupError):
        return False
    return True


def _remove(host: Host, path: str) -> bool:
    try:
        host.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise HostError(f"cannot remove {path}: {error.strerror}") from error
    return True
