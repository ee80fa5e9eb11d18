"""A room in which a real libvirtd runs and nvlane with it: a Debian root in mount and process name spaces of its own.

Nothing of it reaches the host: files are in memory, and everything that was started ends with the room's first process.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libvirt_root import root

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
URI = "qemu:///system"
#: Seconds: for a daemon to answer, and for any one command. Two emulated guests on slow cores take their time.
START_DEADLINE = 60.0
COMMAND_DEADLINE = 300.0
DAEMONS = {"virtlogd": "/run/virtlogd.pid", "libvirtd": "/run/libvirtd.pid"}


@dataclass(frozen=True, kw_only=True)
class Ran:
    """A command that ended."""

    argv: tuple[str, ...]
    status: int
    out: str
    err: str

    def ok(self) -> Ran:
        assert self.status == 0, f"{self.argv}: exit status {self.status}\n{self.out[-3000:]}\n{self.err[-6000:]}"
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Room:
    """A room that stands. `cmdline` is that of the guest's kernel."""

    def __init__(self, suite: str, first: int) -> None:
        """`first` is the room's first process, as seen from outside."""
        self.suite = suite
        self._first = first
        self.cmdline = ""

    def command(self, *argv: str) -> list[str]:
        """The words that run a command in the room."""
        return ["nsenter", "--target", str(self._first), "--mount", "--pid", "--root", "--wd", "--", *argv]

    def environment(self) -> dict[str, str]:
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": "/nvlane/src",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(
        self, *argv: str, input: str = "", env: Mapping[str, str] | None = None, deadline: float = COMMAND_DEADLINE
    ) -> Ran:
        """A command in the room, to its end."""
        done = subprocess.run(
            self.command(*argv), input=input, capture_output=True, text=True, errors="replace", timeout=deadline,
            env={**self.environment(), **(env or {})}, check=False,
        )  # fmt: skip
        return Ran(argv=argv, status=done.returncode, out=done.stdout, err=done.stderr)

    def nvlane(self, *argv: str, **options: Any) -> Ran:
        return self.run("python3", "-m", "nvlane", *argv, **options)

    def virsh(self, *argv: str, check: bool = True) -> str:
        ran = self.run("virsh", "--quiet", "--connect", URI, *argv)
        return ran.ok().out if check else ran.out + ran.err

    def shell(self, script: str) -> str:
        return self.run("sh", "-euc", script).ok().out

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-euc", f"cat > {path}", input=text).ok()

    def read(self, path: str) -> str:
        return self.run("cat", path).ok().out

    def define(self, xml: str) -> str:
        """Define a domain; what libvirt shows of it once it has read its own words back."""
        self.write("/tmp/domain.xml", xml.replace("@CMDLINE@", self.cmdline))
        name = xml.partition("<name>")[2].partition("</name>")[0]
        if name in self.virsh("list", "--all", "--name").split():  # a test that failed left it
            self.virsh("undefine", name)
        self.virsh("define", "/tmp/domain.xml")
        for _ in range(2):
            self.write("/tmp/domain.xml", self.definition(name))
            self.virsh("define", "/tmp/domain.xml")
        return self.definition(name)

    def definition(self, name: str) -> str:
        return self.virsh("dumpxml", "--inactive", name)

    def lane(self, name: str, text: str) -> str:
        """A file with one lane."""
        self.write(f"/tmp/{name}.toml", f'[[lane]]\nname = "{name}"\n{text}\n')
        return f"/tmp/{name}.toml"

    def left(self) -> str:
        """What nvlane keeps or runs."""
        return self.shell("ls -A /var/lib/nvlane /run/nvlane 2>/dev/null || true")

    def start_daemon(self, name: str) -> None:
        """Start it and wait until it answers; libvirtd says so through virsh."""
        self.run(name, "-d").ok()
        until = time.monotonic() + START_DEADLINE
        while name == "libvirtd" and self.run("virsh", "--quiet", "--connect", URI, "version").status != 0:
            assert time.monotonic() < until, f"{name} does not answer"
            time.sleep(0.1)

    def kill_daemon(self, name: str) -> None:
        """As a crash does."""
        pid = self.read(DAEMONS[name]).strip()
        self.shell(f"kill -9 {pid}; rm -f {DAEMONS[name]}")


@contextlib.contextmanager
def room(suite: str) -> Iterator[Room]:
    """A room with libvirtd up."""
    base, kernel = root(suite), root("trixie")
    with tempfile.TemporaryDirectory(prefix="nvlane-room-") as place:
        words = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private", "--"]
        words += ["sh", str(HERE / "room.sh"), str(base.tree), str(kernel.tree), str(CHECKOUT), place]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            assert said == "ready\n", said + process.stdout.read()
            stands = Room(suite, _only_child(process.pid))
            for name in DAEMONS:
                stands.start_daemon(name)
            yield stands
        finally:
            # With --kill-child the first process goes along, with it all others, and the mounts with the last of them.
            process.kill()
            process.wait()
            process.stdout.close()


def _only_child(pid: int) -> int:
    """unshare(1) stays outside and has the first process of the name space as its one child."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
