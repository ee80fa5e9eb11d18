"""A running lab: starting it, finding it again from another shell, using it, ending it.

::

    <runtime>/<name>/       lab.json  qmp.sock  console.sock  console.log  qemu.log  keys/  known_hosts  ssh
    <cache>/running/<name>/ the drives' images; gone with the lab

What the two directories are is in `lab.places`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvlane.apply import process
from nvlane.lab.channel import ALIAS, Channel
from nvlane.lab.drives import DRIVES, Place
from nvlane.lab.machine import devices
from nvlane.lab.places import disk_dir, runtime_dir
from nvlane.lab.waiting import process_end, start_time
from nvlane.model.errors import HostError, WireError
from nvlane.wire.qmp import Qmp

DEFAULT_NAME = "lab"
READY = b"nvlane-lab: ready"
_PANIC = b"Kernel panic - not syncing"
BOOT_DEADLINE = 120.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabState:
    """What `lab.json` holds. `started` is in clock ticks since boot, `seconds` from the call of `up` to the prompt."""

    name: str
    pid: int
    started: int
    port: int
    accelerator: str
    why: str
    qemu: str
    seconds: float
    kernel: str = "cloud"


class Lab:
    """A lab that runs. As a context manager it ends the lab."""

    def __init__(self, state: LabState) -> None:
        self.state = state
        self.directory = runtime_dir() / state.name
        self.channel = Channel(directory=self.directory, port=state.port)

    @property
    def alive(self) -> bool:
        """Whether its QEMU, this very process, is still there."""
        return start_time(self.state.pid) == self.state.started

    def run(
        self, argv: Sequence[str], *, stdin: str | None = None, timeout: float | None = 120.0, check: bool = True
    ) -> process.Completed:
        """Run a command inside, to its end, and give its output; see Channel.run."""
        return self.channel.run(argv, input=stdin, timeout=timeout, check=check)

    def stream(self, argv: Sequence[str], *, patience: float | None = None, check: bool = True) -> Iterator[str]:
        """The lines of a command's output as they come; see Channel.stream."""
        return self.channel.stream(argv, patience=patience, check=check)

    def put(self, content: bytes, path: str, *, mode: int = 0o644) -> None:
        """Write a file inside."""
        self.channel.put(content, path, mode=mode)

    def get(self, path: str) -> bytes:
        """Read a file inside."""
        return self.channel.get(path)

    def monitor(self) -> Qmp:
        """A QMP session with the outer machine. It serves one client at a time: close it soon."""
        return Qmp.connect(str(self.directory / "qmp.sock"), pid=self.state.pid)

    def qmp(self, command: str, **arguments: object) -> Any:
        """One QMP command to the outer machine; `_` in an argument's name is `-` there."""
        with self.monitor() as monitor:
            return monitor.execute(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def pull(self, serial: str) -> None:
        """Take a drive out while everything runs, as a hand would. It returns when the guest has let it go."""
        device = serial.lower()
        with self.monitor() as monitor:
            monitor.execute("device_del", {"id": device})
            monitor.wait_event("DEVICE_DELETED", match=lambda data: data.get("device") == device, deadline=30.0)

    def insert(self, serial: str) -> None:
        """Put a pulled drive back, as a hand would. HostError for a drive that only the machine's start can place."""
        drive = next((each for each in DRIVES if each.serial == serial), None)
        values = devices(drive, DRIVES) if drive and drive.place is Place.ROOT_PORT else ()
        if len(values) != 1:
            raise HostError(f"{serial} cannot be plugged in while the lab runs")
        driver, rest = values[0]["driver"], {name: value for name, value in values[0].items() if name != "driver"}
        with self.monitor() as monitor:
            monitor.execute("device_add", {"driver": driver, **rest})

    def reset(self, *, sync: bool = True, timeout: float = BOOT_DEADLINE) -> None:
        """Reboot the virtual host, as its reset button does; disks keep what was written. `sync=False`: no warning."""
        if sync:
            self.run(["sync"])
        self.channel.close()
        with connect(self.directory / "console.sock") as console:
            self.qmp("system_reset")
            wait_ready(console, self, timeout=timeout)
        self.channel.open()

    def down(self) -> None:
        """End the lab and remove everything it had. A lab that has already ended is only removed."""
        if self.alive:
            self.channel.close()
            try:
                self.qmp("quit")
            except WireError:
                os.kill(self.state.pid, signal.SIGTERM)  # a monitor that does not answer; the process is still ours
            if not process_end(self.state.pid, timeout=10):
                os.kill(self.state.pid, signal.SIGKILL)
                process_end(self.state.pid, timeout=10)
        remove(self.state.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()


def find(name: str = DEFAULT_NAME) -> Lab:
    """The running lab of that name. HostError with the remedy when there is none."""
    lab = look(name)
    if lab is None or not lab.alive:
        raise HostError(f"no lab called {name!r} is running", remedy="start it: nvlane lab up")
    return lab


def look(name: str) -> Lab | None:
    """The lab of that name, running or dead, if it left a record."""
    file = runtime_dir() / name / "lab.json"
    try:
        return Lab(LabState(**json.loads(file.read_text())))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise HostError(f"{file} is damaged: {error}", remedy=f"remove {file.parent}") from error


def known() -> list[str]:
    """Names of all labs that left a record."""
    directory = runtime_dir()
    return sorted(file.parent.name for file in directory.glob("*/lab.json")) if directory.is_dir() else []


def record(state: LabState) -> Lab:
    """Write `lab.json`, whole or not at all."""
    directory = runtime_dir() / state.name
    new = directory / "lab.json.new"
    new.write_text(json.dumps(asdict(state), indent=2) + "\n")
    new.rename(directory / "lab.json")
    return Lab(state)


def remove(name: str) -> None:
    """Remove what a lab that no longer runs left behind."""
    for directory in (runtime_dir() / name, disk_dir() / name):
        if directory.exists():
            shutil.rmtree(directory)
        if directory.parent.exists() and not any(directory.parent.iterdir()):
            directory.parent.rmdir()


def connect(path: Path) -> socket.socket:
    """A connection to the lab's console."""
    console = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    console.connect(str(path))
    return console


def wait_ready(console: socket.socket, lab: Lab, *, timeout: float) -> None:
    """Read the console until the lab says that it is ready. HostError when it panics, ends or is late."""
    deadline = time.monotonic() + timeout
    said = b""
    while READY not in said:
        console.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = console.recv(65536)
        except TimeoutError:
            raise _not_ready(lab, f"the lab was not ready within {timeout:g} s", said) from None
        except ConnectionResetError:
            data = b""  # it ended before it took our connection
        if not data:
            raise _not_ready(lab, "the lab's QEMU ended", said)
        said = (said + data)[-65536:]
        if _PANIC in said:
            raise _not_ready(lab, "the lab's kernel panicked", said)


class NotReady(HostError):
    """The virtual host did not come up."""


def _not_ready(lab: Lab, what: str, said: bytes) -> NotReady:
    log = lab.directory / "qemu.log"
    qemu = log.read_text(errors="replace").strip() if log.exists() else ""
    console = said.decode(errors="replace").strip().splitlines()[-12:]
    lines = [f"  QEMU | {line}" for line in qemu.splitlines()[-8:]] + [f"  console | {line}" for line in console]
    return NotReady("\n".join([what, *lines]))


def known_host(public_key: str) -> str:
    """The line of `known_hosts` that pins this lab's key."""
    return f"{ALIAS} {public_key}\n"
