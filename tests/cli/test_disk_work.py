"""Snapshots, mirrors, backups and limits of a machine that runs, by a real QEMU, broken off at every moment.

No guest runs on it: its processor finds nothing to boot, and what a guest would write is written through QEMU's own
front end. What a guest sees meanwhile is for the lab's tests to say.
"""

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

[[lane]]
kind = "emulated"
name = "data"
namespaces = [{ image = "one.qcow2", size = "16MiB" }, { image = "two.raw" }]
"""


class Vm:
    """The machine, and what its guest would do."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.directory = program.directory

    def __call__(self, *words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = self.program(*words, **environment)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json").stdout)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def monitor(self) -> Qmp:
        return Qmp.connect(str(self.program.runtime / "vm" / "qmp.sock"))

    def write(self, frontend: str, pattern: int, at: str = "4M") -> None:
        """A mebibyte, as the guest would through this front end."""
        with self.monitor() as monitor:
            for command in (f"write -P {pattern:#x} {at} 1M", "flush"):
                line = {"command-line": f'qemu-io -d {frontend} "{command}"'}
                said = monitor.execute("human-monitor-command", line)
                assert "rror" not in said, said

    def has(self, name: str, pattern: int, at: str = "4M") -> bool:
        """Whether an image has the pattern there; QEMU may have it open."""
        argv = ["qemu-io", "-U", "-r", "-c", f"read -P {pattern:#x} {at} 1M", self.path(name)]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def disks(self) -> dict[str, str]:
        return {disk["name"]: Path(disk["path"]).name for disk in self.json("status", "vm")["disks"]}

    def jobs(self) -> tuple[str, ...]:
        with self.monitor() as monitor:
            return tuple(job.id for job in blocks.jobs(monitor))


@pytest.fixture
def vm(nvlane: Program) -> Iterator[Vm]:
    """A machine that is up, and none that is left behind whatever the test does."""
    (nvlane.directory / "vm.toml").write_text(SPEC)
    for name in ("boot.raw", "two.raw"):
        (nvlane.directory / name).write_bytes(os.urandom(8 * MIB))
    running = Vm(nvlane)
    running("up", "vm.toml", "--no-verify")
    yield running
    running("down", "--all", "--shutdown", "0")
    assert not nvlane.state.exists()


def test_snapshots_rest_on_each_other(vm: Vm) -> None:
    """Each file keeps what the disk held; the image that `up` made is no longer `down`'s to remove."""
    vm.write("data-ns1", 1)
    said = vm.json("snapshot", "vm", "data:1", "--to", "snap1.qcow2")
    assert said["spec"] == f'in the namespace of lane data: image = "{vm.path("snap1.qcow2")}", format = "qcow2"'
    vm.write("data-ns1", 2)
    vm("snapshot", "vm", "data:1", "--to", "snap2.qcow2")
    vm.write("data-ns1", 3)
    assert (vm.has("one.qcow2", 1), vm.has("snap1.qcow2", 2), vm.has("snap2.qcow2", 3)) == (True, True, True)
    assert vm.disks() == {"boot": "boot.raw", "data:1": "snap2.qcow2", "data:2": "two.raw"}
    assert not any("one.qcow2" in step for step in vm.json("status", "vm")["to_undo"])
    vm("snapshot", "vm", "boot", "--to", "boot.qcow2")
    assert vm.disks()["boot"] == "boot.qcow2"
    vm("down", "vm", "--shutdown", "0")
    assert vm.has("snap2.qcow2", 3)


def test_what_is_there_is_never_overwritten(vm: Vm) -> None:
    before = (vm.directory / "two.raw").read_bytes()
    for verb in ("snapshot", "mirror", "backup"):
        assert "is there already" in vm(verb, "vm", "data:1", "--to", "two.raw", status=3).stderr
    assert (vm.directory / "two.raw").read_bytes() == before


def test_a_disk_has_a_name(vm: Vm) -> None:
    assert "name one: data:1, data:2" in vm("snapshot", "vm", "data", "--to", "x.qcow2", status=1).stderr
    assert "there are: boot, data:1, data:2" in vm("snapshot", "vm", "dta", "--to", "x.qcow2", status=1).stderr


def test_mirror_goes_over(vm: Vm) -> None:
    """Of a disk above a snapshot: the copy needs neither, and QEMU lets both go."""
    vm.write("data-ns1", 1)
    vm("snapshot", "vm", "data:1", "--to", "snap.qcow2")
    vm.write("data-ns1", 2, "5M")
    vm("mirror", "vm", "data:1", "--to", "moved.raw")
    vm.write("data-ns1", 3, "6M")
    assert [vm.has("moved.raw", pattern, f"{pattern + 3}M") for pattern in (1, 2, 3)] == [True] * 3
    assert not vm.has("snap.qcow2", 3, "6M")
    with vm.monitor() as monitor:
        assert [node for node in blocks.nodes(monitor) if node.startswith("data-1")] == ["data-1-mirror1"]
        assert "data-disk0" not in blocks.nodes(monitor)


def test_mirror_that_waits(vm: Vm) -> None:
    """Left running, it is told its end later: each of the three."""
    for then, kept in (("cancel", False), ("stop", True), ("complete", True)):
        vm("mirror", "vm", "data:2", "--to", f"{then}.raw", "--then", "wait")
        (job,) = vm.json("jobs", "vm")
        assert (job["disk"], job["status"], job["left"]) == ("data:2", "ready", True)
        vm.write("data-ns2", 7)
        vm("jobs", "vm", f"--{then}", job["id"])
        assert (vm.directory / f"{then}.raw").exists() is kept
        assert not kept or vm.has(f"{then}.raw", 7)
        assert vm.jobs() == ()
        assert vm.disks()["data:2"] == ("complete.raw" if then == "complete" else "two.raw")


def test_a_mirror_that_waits_goes_with_its_machine(vm: Vm) -> None:
    vm("mirror", "vm", "data:2", "--to", "half.raw", "--then", "wait")
    vm("down", "vm", "--shutdown", "0")
    assert not (vm.directory / "half.raw").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_broken_off(vm: Vm, how: signal.Signals) -> None:
    """Ctrl-C takes it back at once; after SIGKILL QEMU goes on copying, and `restore` takes it back."""
    mirror = vm.program.start("mirror", "vm", "data:2", "--to", "never.raw", "--speed", "64KiB")
    until = time.monotonic() + 60
    while not vm.jobs():
        assert time.monotonic() < until
        time.sleep(0.1)
    mirror.send_signal(how)
    mirror.communicate(timeout=60)
    if how is signal.SIGKILL:
        assert [work["left"] for work in vm.json("status", "vm")["work"]] == [False]
        assert "is put right" in vm("restore").stderr
    assert not (vm.directory / "never.raw").exists()
    assert (vm.jobs(), vm.disks()["data:2"], vm.json("status", "vm")["work"]) == ((), "two.raw", [])


#: The journal's records of a mirror, counted: the copy is whole after the 9th, and the guest is on it after the 10th.
@pytest.mark.parametrize(
    ("record", "verb"), [(3, "restore"), (8, "down"), (9, "restore"), (10, "restore"), (10, "down")]
)
def test_killed_after_each_record(vm: Vm, record: int, verb: str) -> None:
    """The guest is where the record says, and no file that it is on is ever removed."""
    vm("mirror", "vm", "data:2", "--to", "to.raw", status=-signal.SIGKILL, NVLANE_DIE_AFTER_RECORD=str(record))
    with vm.monitor() as monitor:
        now = blocks.disk(monitor, "data-ns2")
    assert now is not None
    over = now.node == "data-2-mirror1"
    if verb == "restore":
        vm("restore")
        assert vm.json("status", "vm")["work"] == []
        assert vm.disks()["data:2"] == ("to.raw" if over else "two.raw")
        assert vm.jobs() == ()
    else:
        vm("down", "vm", "--shutdown", "0")
    assert (vm.directory / "to.raw").exists() is (record >= 9)
    assert (vm.directory / "two.raw").exists()


def test_backups_by_bitmap(vm: Vm) -> None:
    """The first is whole, the next holds what changed, and the bitmap of a qcow2 image outlives the machine."""
    vm.write("data-ns1", 1)
    assert vm.json("backup", "vm", "data:1", "--to", "mon.qcow2", "--bitmap", "week")["state"] == "full"
    vm.write("data-ns1", 2, "6M")
    assert "--base" in vm("backup", "vm", "data:1", "--to", "tue.qcow2", "--bitmap", "week", status=1).stderr
    second = vm.json("backup", "vm", "data:1", "--to", "tue.qcow2", "--bitmap", "week", "--base", "mon.qcow2")
    assert (second["state"], second["size"]) == ("incremental", MIB)
    vm.write("data-ns1", 3, "7M")
    vm("down", "vm", "--shutdown", "0")
    vm("up", "vm.toml", "--no-verify")
    third = vm.json("backup", "vm", "data:1", "--to", "wed.qcow2", "--bitmap", "week", "--base", "tue.qcow2")
    assert (third["state"], third["size"]) == ("incremental", MIB)
    vm("down", "vm", "--shutdown", "0")
    assert (
        subprocess.run(["qemu-img", "compare", vm.path("wed.qcow2"), vm.path("one.qcow2")], check=False).returncode == 0
    )


def test_a_backup_is_of_one_moment(vm: Vm) -> None:
    """What is written while it runs is not in it, and Ctrl-C leaves neither a file nor a bitmap."""
    vm.write("data-ns2", 1)
    slow = vm.program.start("backup", "vm", "data:2", "--to", "slow.raw", "--speed", "2MiB", "--bitmap", "b")
    until = time.monotonic() + 60
    while not vm.jobs():
        assert time.monotonic() < until
        time.sleep(0.1)
    vm.write("data-ns2", 2)
    slow.communicate(timeout=60)
    assert slow.returncode == 0
    assert vm.has("slow.raw", 1)
    broken = vm.program.start("backup", "vm", "boot", "--to", "never.raw", "--speed", "64KiB", "--bitmap", "c")
    while not vm.jobs():
        assert time.monotonic() < until + 60
        time.sleep(0.1)
    broken.send_signal(signal.SIGINT)
    broken.communicate(timeout=60)
    assert not (vm.directory / "never.raw").exists()
    with vm.monitor() as monitor:
        found = {name: blocks.disk(monitor, name) for name in ("data-ns2", "boot-disk")}
    assert {name: disk.bitmaps for name, disk in found.items() if disk} == {"data-ns2": ("b",), "boot-disk": ()}


def test_limits(vm: Vm) -> None:
    vm("throttle", "vm", "data:1", "--iops", "500", "--burst-iops", "900", "--bps-read", "1MiB")
    assert vm.json("throttle", "vm", "data:1")["limits"] == {"iops": 500, "iops_max": 900, "bps_rd": MIB}
    vm("throttle", "vm", "data:1", "--clear")
    assert vm.json("throttle", "vm", "data:1")["limits"] == {}
    assert not any(step.startswith("limit") for step in vm.json("status", "vm")["to_undo"])


def test_sizes(vm: Vm) -> None:
    vm("resize", "vm", "boot", "12MiB")
    assert (vm.directory / "boot.raw").stat().st_size == 12 * MIB
    assert "would be lost" in vm("resize", "vm", "boot", "4MiB", status=3).stderr
    assert "whole blocks of 512" in vm("resize", "vm", "boot", str(13 * MIB + 1), status=3).stderr
    assert "unshared by the device" in vm("resize", "vm", "data:1", "64MiB", status=3).stderr
    vm("resize", "vm", "boot", "4MiB", "--shrink")
    assert (vm.directory / "boot.raw").stat().st_size == 4 * MIB


def test_a_lane_that_is_being_copied_is_not_detached(vm: Vm) -> None:
    lane = '[[lane]]\nkind = "emulated"\nname = "hot"\nnamespaces = [{ image = "hot.raw", size = "8MiB" }]\n'
    (vm.directory / "hot.toml").write_text(lane)
    vm("attach", "vm", "hot.toml", "--no-verify")
    vm("mirror", "vm", "hot", "--to", "hot-moved.raw", "--then", "wait")
    assert "nvlane jobs vm --cancel hot-mirror1" in vm("detach", "vm", "hot", status=1).stderr
    assert vm.disks()["hot"] == "hot.raw"
