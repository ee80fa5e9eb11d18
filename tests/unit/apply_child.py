"""A real run on the real host that harms nobody: directories, images, and a process with a socket.

Started as a program it does `begin` or `end`, so that a test can have it killed after any of its records.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from apply_runs import Runs

from nvlane.apply.linux import LinuxHost
from nvlane.apply.operations.launch import Launch
from nvlane.apply.operations.table import Launchers
from nvlane.apply.store import Store
from nvlane.model.errors import HostError
from nvlane.model.size import MIB
from nvlane.plan.step import CreateImage, Export, MakeDirectory, StartTarget, Step

#: Says hello to whoever connects to the socket that it was handed.
SERVER = "import socket; s = socket.socket(fileno=10)\nwhile True: c, _ = s.accept(); c.sendall(b'hello'); c.close()"


class Greeter:
    """A launcher for SERVER; `step.binary` is the Python to run it with."""

    def launch(self, step: StartTarget) -> Launch:
        return Launch(
            name=step.name,
            directory=step.directory,
            log=f"{step.directory}/greeter.log",
            sockets={"export": step.export.socket},
        )

    def argv(self, step: StartTarget, descriptors: Mapping[str, int]) -> tuple[str, ...]:
        assert descriptors == {"export": 10}
        return (step.binary, "-c", SERVER)

    def ready(self, step: StartTarget, pid: int, deadline: float) -> None:  # noqa: ARG002
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(deadline)
            client.connect(step.export.socket)
            if client.recv(5) != b"hello":
                raise HostError("it does not greet")

    def quit(self, directory: str, name: str, deadline: float) -> None:  # noqa: ARG002
        raise AssertionError("targets are ended by a signal")


def steps(base: Path) -> tuple[Step, ...]:
    directory = f"{base}/runtime/vm"
    export = Export(node="n", socket=f"{directory}/x.sock", frontend="virtio-blk", queues=1, block_size=512, null=MIB)
    return (
        MakeDirectory(path=f"{base}/images/deep"),
        CreateImage(path=f"{base}/images/deep/a.raw", format="raw", size=MIB),
        StartTarget(engine="greeter", name="vm.0", binary=sys.executable, directory=directory, export=export),
    )


def runs(base: Path) -> Runs:
    greeter: Any = Greeter()
    launchers = Launchers(machine=greeter, plugger=greeter, targets={"greeter": greeter})
    return Runs(Store(base / "state", base / "runtime"), LinuxHost(), launchers)


if __name__ == "__main__":
    verb, where = sys.argv[1], Path(sys.argv[2])
    if verb == "begin":
        runs(where).begin("vm", steps(where))
    else:
        runs(where).end("vm").raise_for_failed()
