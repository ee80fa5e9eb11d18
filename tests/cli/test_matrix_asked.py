"""The matrix of lanes, asked of a real QEMU: for each lane that needs no drive, what QEMU does for it and what it
refuses. Lanes that need a drive are asked in the lab (tests/lab/inside/test_matrix.py).

A machine for each lane. Its disk is blank, so nothing boots: the questions are QEMU's to answer, and no guest's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program

from nvlane.qemu.inspect import chardevs, status, vcpu_threads
from nvlane.wire.jsonrpc import JsonRpc
from nvlane.wire.qmp import Qmp, QmpError

sys.path.insert(0, str(Path(__file__).parents[1] / "lab" / "inside"))
from asking import BLOCK_QUESTIONS, Disk, blocked, disk_of, openers, refused, saved, ticks

QEMU = "qemu-system-x86_64"

pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in (QEMU, "qemu-img", "qemu-storage-daemon")),
    reason=f"no {QEMU}, qemu-img or qemu-storage-daemon on this machine",
)

SPEC = """[machine]
name = "vm"
memory = "128MiB"
cpus = 2
accelerator = "tcg"
image = "boot.img"
image_format = "raw"

[[lane]]
name = "asked"
"""
LANES = {
    "emulated": 'kind = "emulated"\nnamespaces = [{ image = "data.qcow2", size = "64MiB" }]',
    "vhost-user-file": 'kind = "vhost-user"\nfile = "data.raw"\nsize = "64MiB"',
    "vhost-user-daemon": 'kind = "vhost-user"\nengine = "qemu-storage-daemon"\nfile = "data.raw"\nsize = "64MiB"',
    "nvdimm-memory": 'kind = "nvdimm"\nbacking = "memory"\nsize = "64MiB"',
    "virtio-pmem": 'kind = "nvdimm"\nbacking = "file"\npath = "data.raw"\nsize = "64MiB"',
}
VHOST = ("vhost-user-file", "vhost-user-daemon")
WITHOUT_NODE = (*VHOST, "nvdimm-memory", "virtio-pmem")


class Running:
    """A machine with one lane, and its monitors."""

    def __init__(self, lane: str, program: Program) -> None:
        self.lane = lane
        self.program = program
        self.directory = program.directory

    def monitor(self) -> Qmp:
        return Qmp.connect(str(self.program.runtime / "vm/qmp.sock"))

    def daemon(self) -> Qmp:
        return Qmp.connect(str(self.program.runtime / "vm/asked/qmp.sock"))


class Machines:
    """Each lane's machine, started when it is first asked; all of them go at the end."""

    def __init__(self, directories: pytest.TempPathFactory) -> None:
        self._directories = directories
        self._running: dict[str, Running] = {}

    def running(self, lane: str) -> Running:
        if lane not in self._running:
            program = Program(self._directories.mktemp(lane))
            (program.directory / "vm.toml").write_text(f"{SPEC}{LANES[lane]}\n")
            with (program.directory / "boot.img").open("wb") as image:
                image.truncate(1 << 20)
            up = program("up", "vm.toml", "--no-verify", "--json")
            assert up.returncode == 0, up.stderr
            self._running[lane] = Running(lane, program)
        return self._running[lane]

    def down(self) -> None:
        for running in self._running.values():
            ended = running.program("down", "vm", "--shutdown", "0")
            assert ended.returncode == 0, ended.stderr
            assert not list((running.program.state / "runs").glob("*"))


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    started = Machines(tmp_path_factory)
    yield started
    started.down()


@pytest.fixture
def running(request: pytest.FixtureRequest, machines: Machines) -> Running:
    return machines.running(request.param)


def _of(*lanes: str, then: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Ids like 'emulated' or 'emulated-snapshot', by which the matrix cites them."""
    if not then:
        return pytest.mark.parametrize("running", lanes, indirect=True)
    pairs = [pytest.param(lane, question, id=f"{lane}-{question}") for lane in lanes for question in then]
    return pytest.mark.parametrize(("running", "question"), pairs, indirect=["running"])


@_of("emulated", then=("snapshot", "mirror", "backup", "throttle"))
def test_qemu_does_it(running: Running, question: str) -> None:
    with running.monitor() as monitor:
        disk = disk_of(monitor, "asked", running.directory)
        assert disk is not None
        BLOCK_QUESTIONS[question](disk)
        assert status(monitor) == "running"


@_of("emulated")
def test_a_namespace_of_qemus_controller_is_not_resized(running: Running) -> None:
    """The controller keeps others from it: it would never tell its guest."""
    with running.monitor() as monitor:
        disk = disk_of(monitor, "asked", running.directory)
        assert disk is not None
        with pytest.raises(QmpError, match=r"Permission conflict|'resize'"):
            disk.resize()


@_of(*WITHOUT_NODE, then=tuple(BLOCK_QUESTIONS))
def test_qemu_has_nothing_of_it_in_its_block_layer(running: Running, question: str) -> None:
    with running.monitor() as monitor:
        assert disk_of(monitor, "asked", running.directory) is None
        refused(monitor, "asked", question)


@_of("vhost-user-daemon", then=("resize", "mirror", "backup", "snapshot"))
def test_the_storage_daemon_does_it(running: Running, question: str) -> None:
    """Through its own monitor, while QEMU is connected to it. The snapshot is the last: the export moves to it."""
    with running.daemon() as monitor:
        BLOCK_QUESTIONS[question](Disk(monitor, "disk0", None, running.directory))
        (export,) = monitor.execute("query-block-exports")
        assert not export["shutting-down"]


@_of("vhost-user-daemon")
def test_the_storage_daemon_has_no_limits_for_an_export(running: Running) -> None:
    with running.daemon() as monitor, pytest.raises(QmpError, match=r"not been found|block_set_io_throttle"):
        monitor.execute("block_set_io_throttle", {"id": "export0"})


@_of("vhost-user-file")
def test_nvlane_target_has_no_block_jobs(running: Running) -> None:
    with JsonRpc.connect(str(running.program.runtime / "vm/asked/rpc.sock")) as target:
        methods = target.call("rpc_get_methods")
    assert "bdev_set_qos_limit" in methods
    makers = ("snapshot", "clone", "lvol", "raid_create", "copy", "mirror", "backup")
    assert not [name for name in methods if any(word in name for word in makers)]


@_of("vhost-user-file", "vhost-user-daemon", "nvdimm-memory", "virtio-pmem")
def test_qemu_would_migrate_it(running: Running) -> None:
    """It gives no reason against it, and really sends the machine out."""
    with running.monitor() as monitor:
        assert blocked(monitor) == ()
        assert saved(monitor, running.directory) > 0
        assert status(monitor) == "running"


@_of("emulated")
def test_qemu_refuses_to_migrate_it(running: Running) -> None:
    """By name where it lists its reasons (QEMU 8.1 and newer), else by the command itself."""
    with running.monitor() as monitor:
        assert all("nvme" in reason for reason in blocked(monitor))
        with pytest.raises(QmpError, match="nvme"):
            monitor.execute("migrate", {"uri": f"unix:{running.directory}/nobody.sock"})


@_of("emulated", "vhost-user-daemon", "virtio-pmem")
def test_nvlane_does_not_migrate_it(running: Running) -> None:
    code = {"emulated": "migration-blocked", "vhost-user-daemon": "engine-migration", "virtio-pmem": "memory-shared"}
    said = running.program("migrate", "vm", "--json")
    assert said.returncode == 3, said.stderr
    assert code[running.lane] in [one["code"] for one in json.loads(said.stdout)["error"]["refusals"]]
    with running.monitor() as monitor:
        assert status(monitor) == "running"


@_of(*LANES)
def test_who_serves_it(running: Running) -> None:
    """A lane with a link is served by a process of its own, any other by QEMU."""
    with running.monitor() as monitor:
        links = [one.id for one in chardevs(monitor) if one.id == "asked-link"]
    assert bool(links) == (running.lane in VHOST)


SHARED = ("emulated", "vhost-user-file", "vhost-user-daemon", "virtio-pmem")


@_of(*SHARED)
def test_a_drive_is_shared(running: Running, machines: Machines) -> None:
    """Machines that run at once, each with a file of its own, all on one file system."""
    others = [machines.running(lane) for lane in SHARED]
    files = {one.directory / ("data.qcow2" if one.lane == "emulated" else "data.raw") for one in others}
    assert len(files) == len(SHARED)
    assert len({file.stat().st_dev for file in files}) == 1
    assert all(openers(file) for file in files)
    with running.monitor() as monitor:
        assert status(monitor) == "running"


@_of(*LANES)
def test_idle_it_takes_no_processor(running: Running) -> None:
    """Of all threads but the vCPUs': a thread that polls would take all of one."""
    pids = [int(json.loads(running.program("status", "vm", "--json").stdout)["pid"])]
    pids += _targets(running)
    assert len(pids) == (2 if running.lane in VHOST else 1)
    with running.monitor() as monitor:
        guest = vcpu_threads(monitor)
    deadline = time.monotonic() + 30
    while (share := _share(pids, guest)) > 0.25:
        assert time.monotonic() < deadline, f"{share:.0%} of a processor, again and again"


def _targets(running: Running) -> list[int]:
    """The process that has the lane's file open, where that is not QEMU itself; none for lanes without a link."""
    if running.lane not in VHOST:
        return []
    return openers(running.directory / "data.raw")


def _share(pids: list[int], guest: tuple[int, ...]) -> float:
    """The part of one processor that processes took in a second, without the guest's own threads."""
    before, since = sum(ticks(pid, leave_out=guest) for pid in pids), time.monotonic()
    time.sleep(1.0)
    after, seconds = sum(ticks(pid, leave_out=guest) for pid in pids), time.monotonic() - since
    return (after - before) / os.sysconf("SC_CLK_TCK") / seconds
