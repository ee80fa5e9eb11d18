"""Telling our processes from all others: by start time, and by a token in their environment."""

from __future__ import annotations

from typing import Final

from nvlane.apply.operations.found import MadeProcess
from nvlane.model.host import HostReader

#: The variable that holds the token. /proc/PID/environ shows it to root and to the same user only (proc(5)).
TOKEN_NAME: Final = "NVLANE_TOKEN"

#: Position of the start time behind the command name, which ends with the last ')': field 22 of proc_pid_stat(5).
_START_TIME: Final = 19
_STATE: Final = 0


def start_time_of(host: HostReader, pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when there is none, or only its zombie."""
    try:
        text = host.read_text(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[_STATE] in "ZX" else int(fields[_START_TIME])


def boot_id(host: HostReader) -> str:
    """Changes with every boot (random(4))."""
    return host.read_text("/proc/sys/kernel/random/boot_id").strip()


def find_by_token(host: HostReader, token: str) -> tuple[MadeProcess, ...]:
    """Every live process that was started with this token. A process of which the environment may not be read is
    somebody else's; one that ends while we look is gone."""
    wanted = f"{TOKEN_NAME}={token}".encode()
    found: list[MadeProcess] = []
    for name in host.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            environment = host.read_bytes(f"/proc/{name}/environ")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if wanted in environment.split(b"\0"):
            start_time = start_time_of(host, int(name))
            if start_time is not None:
                found.append(MadeProcess(pid=int(name), start_time=start_time, boot_id=boot_id(host)))
    return tuple(found)


def name_of(host: HostReader, pid: int) -> str:
    """'qemu-system-x86 (process 1234)', for messages."""
    try:
        return f"{host.read_text(f'/proc/{pid}/comm').strip()} (process {pid})"
    except (FileNotFoundError, ProcessLookupError):
        return f"process {pid}"
