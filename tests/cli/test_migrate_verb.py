"""`migrate` with a real QEMU and a vhost-user target, refused, broken off and put right. What a guest sees of it is for
the lab's tests to say: here nothing boots."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from program import Program

from nvlane.qemu import inspect
from nvlane.targets.program import packaged_target
from nvlane.wire.qmp import Qmp

QEMU = "qemu-system-x86_64"
MIB = 1 << 20

pytestmark = pytest.mark.skipif(
    shutil.which(QEMU) is None or not Path(packaged_target()).exists(), reason=f"no {QEMU}, or no target built"
)

SPEC = """[machine]
name = "vm"
memory = "128MiB"
cpus = 1
accelerator = "tcg"
image = "boot.raw"
image_format = "raw"

[[lane]]
kind = "vhost-user"
name = "data"
file = "data.raw"
size = "16MiB"
"""
NVME = """
[[lane]]
kind = "emulated"
name = "nvme"
namespaces = [{ image = "nvme.raw", size = "8MiB" }]

[[lane]]
kind = "vhost-user"
name = "memory"
malloc = "8MiB"
"""


class Vm:
    def __init__(self, program: Program) -> None:
        self.program = program

    def __call__(self, *words: str, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        done = self.program(*words, **environment)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def status(self) -> Any:
        return json.loads(self("status", "vm", "--json").stdout)

    def runs_in(self) -> list[str]:
        """The directories of the QEMUs that run a machine: one, always."""
        running = []
        for socket in sorted(self.program.runtime.glob("vm*/qmp.sock")):
            with Qmp.connect(str(socket)) as monitor:
                if monitor.execute("query-status")["status"] == "running":
                    running.append(socket.parent.name)
        return running


@pytest.fixture
def vm(nvlane: Program) -> Iterator[Vm]:
    (nvlane.directory / "vm.toml").write_text(SPEC)
    (nvlane.directory / "boot.raw").write_bytes(os.urandom(4 * MIB))
    yield Vm(nvlane)
    if nvlane.state.exists():
        done = nvlane("down", "--all", "--shutdown", "0")
        assert done.returncode == 0, done.stderr
    assert not nvlane.state.exists()
    assert not nvlane.runtime.exists()


def test_twice(vm: Vm) -> None:
    """Away from a QEMU that had received it, too; the disk of a snapshot goes along, and so does the target."""
    vm("up", "vm.toml", "--no-verify")
    before = vm.status()["pid"]
    moved = json.loads(vm("migrate", "vm", "--json").stdout)
    assert moved["pid"] == vm.status()["pid"] != before
    assert vm.runs_in() == ["vm~2"]
    vm("snapshot", "vm", "boot", "--to", "snap.qcow2")
    vm("migrate", "vm")
    assert vm.runs_in() == ["vm~3"]
    (target,) = json.loads(vm("target", "status", "--json").stdout)
    assert (target["running"], Path(target["directory"]).parent.name) == (True, "vm~3")
    assert [Path(disk["path"]).name for disk in vm.status()["disks"]] == ["snap.qcow2"]


MORE = """[[lane]]
kind = "vhost-user"
name = "more"
file = "more.raw"
size = "8MiB"
"""


def test_with_a_lane_that_was_attached(vm: Vm) -> None:
    """Where the new QEMU's slots are the same: each device has the address that its guest knows, on a board of the
    same version."""
    (vm.program.directory / "more.toml").write_text(MORE)
    vm("up", "vm.toml", "--no-verify")
    vm("attach", "vm", "more.toml", "--no-verify")
    before = slots(vm)
    for now in ("vm~2", "vm~3"):
        vm("migrate", "vm")
        assert vm.runs_in() == [now]
        assert slots(vm) == before
        targets = json.loads(vm("target", "status", "--json").stdout)
        assert [(target["running"], Path(target["directory"]).parent.name) for target in targets] == [(True, now)] * 2
    assert any("more" in name for name in before)
    (vm.program.directory / "late.toml").write_text(MORE.replace("more", "late"))
    vm("attach", "vm", "late.toml", "--no-verify")
    vm("migrate", "vm")
    with Qmp.connect(vm.status()["qmp"]) as monitor:
        links = {link.id: link.connected for link in inspect.chardevs(monitor)}
    assert [connected for name, connected in links.items() if name.startswith(("data", "more", "late"))] == [True] * 3


def test_with_a_lane_in_another_slot(vm: Vm) -> None:
    """Somebody else has plugged a device in first: the command line would give the lane that one's port."""
    (vm.program.directory / "more.toml").write_text(MORE)
    vm("up", "vm.toml", "--no-verify")
    with Qmp.connect(vm.status()["qmp"]) as monitor:
        monitor.execute("device_add", {"driver": "virtio-balloon-pci", "id": "mine", "bus": "port1"})
    vm("attach", "vm", "more.toml", "--no-verify")
    said = vm("migrate", "vm", status=3).stderr
    assert "would give more other slots" in said
    assert vm.runs_in() == ["vm"]


def slots(vm: Vm) -> dict[str, tuple[str, str]]:
    """The bus of each device, and the board."""
    with Qmp.connect(vm.status()["qmp"]) as monitor:
        board = inspect.machine_type(monitor)
        return {
            name: (board, inspect.parent_bus(monitor, name)) for name in sorted(inspect.device_ids(monitor) - {"type"})
        }


#: The journal's records of this migration, counted: the first QEMU has been told after the 12th, and the guest is in
#: the second after the 13th.
@pytest.mark.parametrize(("record", "now"), [(8, "vm"), (12, "vm"), (13, "vm~2"), (15, "vm~2"), (17, "vm~2")])
def test_killed(vm: Vm, record: int, now: str) -> None:
    vm("up", "vm.toml", "--no-verify")
    vm("migrate", "vm", status=-signal.SIGKILL, NVLANE_DIE_AFTER_RECORD=str(record))
    vm("restore", "vm")
    assert vm.runs_in() == [now]
    after = vm.status()
    assert (after["state"], after["work"]) == ("up", [])
    assert Path(after["qmp"]).parent.name == now


def test_what_stands_in_the_way(vm: Vm) -> None:
    """QEMU's own reason, and what it cannot know."""
    (vm.program.directory / "vm.toml").write_text(SPEC + NVME)
    vm("up", "vm.toml", "--no-verify")
    before = vm.status()
    with Qmp.connect(before["qmp"]) as monitor:
        (reason,) = monitor.execute("query-migrate")["blocked-reasons"]
    said = vm("migrate", "vm", status=3).stderr
    assert f"QEMU: {reason}" in said
    assert "[memory-not-shared]" in said
    assert vm.status() == before
    assert "of one host only" in vm("migrate", "vm", "--to", "ssh://elsewhere", status=1).stderr
