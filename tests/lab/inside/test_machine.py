"""The machine around the lanes: its own kernel, guest NUMA nodes, shared memory, network, sandbox, sockets, console."""

from __future__ import annotations

import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, nvlane, write_spec

from nvlane.qemu.inspect import device_ids

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("machine")
    plain = nvlane("plan", "--json", write_spec(work, "plain")).ok().json[0]["machine"]["boot"]
    shutil.copy(plain["kernel"], work / "vmlinuz")
    shutil.copy(plain["initrd"], work / "initrd")
    spec = write_spec(
        work,
        "machine",
        f'kind = "emulated"\nname = "disk"\nnamespaces = [{{ image = "{work}/disk.qcow2", size = "1GiB" }}]\n'
        "write_proof = true",
        kernel="vmlinuz",  # beside the spec
        initrd=str(work / "initrd"),
        cmdline=f"{plain['cmdline']} nvlane.test=1",
        numa=[{"cpus": "0", "memory": "96MiB"}, {"memory": "160MiB"}],
        memory_backing="memfd",
        network="user",
        qemu_args=["-device", "virtio-balloon-pci,id=mine"],
    )
    with machine(spec) as running:
        yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


def test_it_boots_the_kernel_of_the_spec(up: Up) -> None:
    assert "nvlane.test=1" in up.read("/proc/cmdline").split()


def test_the_guest_has_two_nodes(up: Up) -> None:
    assert up.read("/sys/devices/system/node/online").strip() == "0-1"
    assert up.read("/sys/devices/system/node/node0/cpulist").strip() == "0"
    assert up.read("/sys/devices/system/node/has_cpu").strip() == "0"


def test_memory_is_shared(up: Up) -> None:
    with up.monitor() as monitor:
        backends = monitor.execute("query-memdev")
    assert sorted((backend["size"], backend["share"]) for backend in backends) == [(96 * MIB, True), (160 * MIB, True)]
    assert "memfd:" in Path(f"/proc/{up.status()['pid']}/maps").read_text()


def test_network_and_the_users_own_arguments(up: Up) -> None:
    with up.monitor() as monitor:
        assert "mine" in device_ids(monitor)
    with up.guest() as guest:
        functions = {(one["vendor"], one["device"]) for one in guest.inventory()["pci"]}
    # A network card of virtio, modern or transitional (virtio 1.2, 4.1.2).
    assert functions & {("0x1af4", "0x1041"), ("0x1af4", "0x1000")}


def test_qemu_runs_in_its_sandbox(up: Up) -> None:
    status = Path(f"/proc/{up.status()['pid']}/status").read_text()
    assert "Seccomp:\t2" in status


def test_sockets_and_logs_are_private(up: Up) -> None:
    files = list(up.runtime.iterdir())
    assert {"qmp.sock", "console.sock", "agent.sock", "probe.sock"} <= {file.name for file in files}
    assert stat.S_IMODE(up.runtime.stat().st_mode) == 0o700
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in files} == dict.fromkeys(
        (file.name for file in files), 0o600
    )


def test_the_console_is_where_status_says(up: Up) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        console.connect(up.status()["console"])
    assert "nvlane-probe: serving" in (up.runtime / "console.log").read_text()
