"""`migrate --copy-storage` with a real QEMU: disks that go along into new images, and a move that breaks off."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from program import Program

from nvlane.qemu import blocks
from nvlane.wire.qmp import Qmp

QEMU = "qemu-system-x86_64"
MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    shutil.which(QEMU) is None or shutil.which("qemu-img") is None, reason=f"no {QEMU} or qemu-img on this machine"
)

SPEC = """[machine]
name = "vm"
memory = "128MiB"
cpus = 1
accelerator = "tcg"
image = "boot.raw"
image_format = "raw"
"""


class Vm:
    """The machine, and what its guest would do."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.directory = program.directory
        self.away = program.directory / "away"

    def __call__(self, *words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = self.program(*words, **environment)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def status(self) -> Any:
        return json.loads(self("status", "vm", "--json").stdout)

    def monitor(self, runtime: str = "vm") -> Qmp:
        return Qmp.connect(str(self.program.runtime / runtime / "qmp.sock"), deadline=60)

    def write(self, pattern: int, at: str, runtime: str = "vm") -> None:
        """A mebibyte, as the guest would through its front end."""
        with self.monitor(runtime) as monitor:
            for command in (f"write -P {pattern:#x} {at} 1M", "flush"):
                line = {"command-line": f'qemu-io -d boot-disk/virtio-backend "{command}"'}
                said = monitor.execute("human-monitor-command", line)
                assert "rror" not in said, said

    def has(self, path: Path, pattern: int, at: str) -> bool:
        argv = ["qemu-io", "-U", "-r", "-c", f"read -P {pattern:#x} {at} 1M", str(path)]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def running(self) -> list[str]:
        """The directories of the QEMUs that run the machine: one, always."""
        found = []
        for socket in sorted(self.program.runtime.glob("vm*/qmp.sock")):
            with Qmp.connect(str(socket), deadline=60) as monitor:
                if monitor.execute("query-status")["status"] == "running":
                    found.append(socket.parent.name)
        return found

    def stayed(self) -> None:
        """It runs where it was, on its own disk, and nothing of the move is left."""
        assert self.running() == ["vm"]
        after = self.status()
        assert (after["state"], after["work"]) == ("up", [])
        assert [Path(disk["path"]).name for disk in after["disks"]] == ["boot.raw"]
        assert [*self.away.iterdir()] == []
        assert not (self.program.runtime / "vm~2").exists()
        with self.monitor() as monitor:
            assert blocks.jobs(monitor) == ()
            assert not {node for node in blocks.nodes(monitor) if "away" in node}


@pytest.fixture
def vm(nvlane: Program) -> Iterator[Vm]:
    (nvlane.directory / "vm.toml").write_text(SPEC)
    (nvlane.directory / "boot.raw").write_bytes(os.urandom(MIB) * 64)
    (nvlane.directory / "away").mkdir()
    running = Vm(nvlane)
    running("up", "vm.toml", "--no-verify")
    yield running
    running("down", "--all", "--shutdown", "0")
    assert not nvlane.state.exists()
    assert not nvlane.runtime.exists()


def test_the_disk_goes_along(vm: Vm) -> None:
    """Into a file of the same format and size; a snapshot's chain becomes one image; and on from there once more."""
    vm.write(1, "1M")
    was = (vm.directory / "boot.raw").read_bytes()
    moved = json.loads(vm("migrate", "vm", "--copy-storage", str(vm.away), "--json").stdout)
    copy = vm.away / "boot.raw"
    assert moved["disks"] == {"boot": str(copy)}
    assert vm.running() == ["vm~2"]
    assert copy.read_bytes() == was
    vm.write(2, "2M", "vm~2")
    assert vm.has(copy, 2, "2M")
    assert (vm.directory / "boot.raw").read_bytes() == was
    vm("snapshot", "vm", "boot", "--to", "snap.qcow2")
    vm.write(3, "3M", "vm~2")
    there = vm.directory / "there"
    there.mkdir()
    vm("migrate", "vm", "--copy-storage", str(there))
    assert [disk["path"] for disk in vm.status()["disks"]] == [str(there / "snap.qcow2")]
    assert [vm.has(there / "snap.qcow2", pattern, f"{pattern}M") for pattern in (1, 2, 3)] == [True] * 3
    info = json.loads(subprocess.check_output(["qemu-img", "info", "-U", "--output=json", there / "snap.qcow2"]))
    assert (info["virtual-size"], "backing-filename" in info) == (64 * MIB, False)
    vm("migrate", "vm")
    assert vm.running() == ["vm~4"]
    vm("down", "vm", "--shutdown", "0")
    assert vm.has(there / "snap.qcow2", 3, "3M"), "the guest's disk was removed"


def test_what_is_there_is_never_overwritten(vm: Vm) -> None:
    (vm.away / "boot.raw").write_text("mine")
    assert "is there already" in vm("migrate", "vm", "--copy-storage", str(vm.away), status=3).stderr
    assert (vm.away / "boot.raw").read_text() == "mine"
    assert vm.running() == ["vm"]
    (vm.away / "boot.raw").unlink()
    vm.stayed()


def begun(vm: Vm) -> subprocess.Popen[str]:
    """A move that takes its time: its mirror is under way."""
    process = vm.program.start("migrate", "vm", "--copy-storage", str(vm.away), "--speed", "4MiB")
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with vm.monitor() as monitor:
            if any(0 < job.done < job.total for job in blocks.jobs(monitor)):
                return process
        time.sleep(0.05)
    raise AssertionError(f"no mirror began: {process.communicate()}")


def test_cancelled(vm: Vm) -> None:
    process = begun(vm)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0, said
    vm.stayed()


def test_the_other_side_dies(vm: Vm) -> None:
    process = begun(vm)
    (there,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and b"vm~2/console.log" in _command_line(entry)
    ]
    os.kill(there, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, "boot-away failed" in said) == (1, True), said
    vm.stayed()


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""  # it has ended meanwhile


#: The journal's records of such a move, counted: the mirror began with the 15th, the guest stood still and its copy was
#: whole at the 17th, and it was in the second QEMU after the 18th.
@pytest.mark.parametrize(("record", "now"), [(15, "vm"), (17, "vm"), (18, "vm~2")])
def test_killed(vm: Vm, record: int, now: str) -> None:
    vm.write(7, "3M")
    vm("migrate", "vm", "--copy-storage", str(vm.away), status=-signal.SIGKILL, NVLANE_DIE_AFTER_RECORD=str(record))
    vm("restore", "vm")
    assert vm.running() == [now]
    copy = vm.away / "boot.raw"
    assert copy.exists() == (record > 15)
    after = vm.status()
    disks = [disk["path"] for disk in after["disks"]]
    assert (after["state"], after["work"], disks) == (
        "up",
        [],
        [str(copy if now != "vm" else vm.directory / copy.name)],
    )
    if record > 15:
        assert vm.has(copy, 7, "3M")
    else:
        vm.stayed()
