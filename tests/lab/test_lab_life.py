"""The lab's own life, in a lab of its own: found again, used, interrupted, a drive pulled, rebooted, ended, gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from nvlane import lab
from nvlane.lab.drives import DRIVES, PATTERN_BYTES, pattern
from nvlane.lab.places import disk_dir, runtime_dir
from nvlane.lab.waiting import start_time
from nvlane.model.errors import CommandFailed, HostError, SpecError

pytestmark = pytest.mark.lab

NAME = "life"


@pytest.fixture(scope="module")
def room() -> Iterator[lab.Lab]:
    with lab.up(lab.LabMachine(name=NAME), lab.to_stderr) as started:
        yield started
    assert start_time(started.state.pid) == -1
    assert not (runtime_dir() / NAME).exists()
    assert not (disk_dir() / NAME).exists()
    assert NAME not in lab.known()


def _nvlane(*words: str) -> list[str]:
    return [sys.executable, "-m", "nvlane", *words]


def test_another_shell_finds_it(room: lab.Lab) -> None:
    done = subprocess.run(
        _nvlane("lab", "run", "--name", NAME, "--", "sh", "-c", "cat; echo words >&2; exit 7"),
        input="through\n", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (7, "through\n", "words\n")
    assert lab.find(NAME).state == room.state


def test_status_says_where_things_are(room: lab.Lab) -> None:
    done = subprocess.run(_nvlane("lab", "status", "--json"), capture_output=True, text=True, check=True)
    (mine,) = [entry for entry in json.loads(done.stdout) if entry["name"] == NAME]
    assert mine["alive"] is True
    assert mine["accelerator"] in ("kvm", "tcg")
    assert mine["why"]
    assert room.directory.stat().st_mode & 0o077 == 0
    assert (room.directory / "qmp.sock").stat().st_mode & 0o777 == 0o600


def test_up_again_is_the_same(room: lab.Lab) -> None:
    assert lab.up(lab.LabMachine(name=NAME)).state == room.state


def test_the_drives_are_as_promised(room: lab.Lab) -> None:
    """Serial, size and blocks of every namespace, by sysfs inside."""
    script = (
        "for n in /sys/class/nvme/nvme*; do for d in $n/nvme*n*; do "
        "echo $(cat $n/serial) $(cat $d/nsid) $(cat $d/size) $(cat $d/queue/logical_block_size); done; done"
    )
    seen = {tuple(line.split()) for line in room.run(["sh", "-c", script]).stdout.splitlines()}
    promised = {
        (drive.serial, str(nsid), str(namespace.size // 512), str(namespace.block))
        for drive in DRIVES
        for nsid, namespace in enumerate(drive.namespaces, start=1)
    }
    assert promised <= seen
    assert {entry[0] for entry in seen} == {*(drive.serial for drive in DRIVES), "LABROOT"}


def test_what_is_in_use(room: lab.Lab) -> None:
    content = room.get("/srv/mounted/pattern.bin")
    assert content == pattern("LABMOUNT", 1)
    assert len(content) == PATTERN_BYTES
    assert room.get("/srv/sibling/pattern.bin") == pattern("LABSIBB", 1)


def _address(room: lab.Lab, serial: str) -> str:
    script = 'for n in /sys/class/nvme/nvme*; do grep -q "^$1 " $n/serial && cat $n/address; done; true'
    return room.run(["sh", "-c", script, "address", serial]).stdout.strip()


def test_iommu_groups(room: lab.Lab) -> None:
    def group(serial: str) -> list[str]:
        listing = room.run(["ls", f"/sys/bus/pci/devices/{_address(room, serial)}/iommu_group/devices"])
        return listing.stdout.split()

    assert len(group("LABDRIVE1")) == 1
    assert sorted(group("LABSIBA")) == sorted([_address(room, "LABSIBA"), _address(room, "LABSIBB")])


def test_the_second_node_has_a_drive(room: lab.Lab) -> None:
    node = room.run(["cat", f"/sys/bus/pci/devices/{_address(room, 'LABDRIVE2')}/numa_node"])
    assert node.stdout.strip() == "1"


def test_nested_kvm_and_persistent_memory(room: lab.Lab) -> None:
    room.run(["test", "-c", "/dev/kvm"])
    size = room.run(["cat", "/sys/bus/nd/devices/region0/size"]).stdout
    assert int(size) == lab.LabMachine().pmem


def test_nvlane_runs_inside(room: lab.Lab) -> None:
    assert room.run(["nvlane", "--version"]).stdout.startswith("nvlane ")


def test_streams_as_it_comes(room: lab.Lab) -> None:
    lines = room.stream(["sh", "-c", "echo first; sleep 30; echo never"])
    began = time.monotonic()
    assert next(lines) == "first"
    assert time.monotonic() - began < 25
    lines.close()  # type: ignore[attr-defined]
    assert not _running(room, "sleep 30")


def test_a_command_that_goes_silent_is_given_up(room: lab.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvlane.lab.channel.QUIET", 1.0)
    lines = room.stream(["sh", "-c", "echo first; exec sleep 3456"], patience=2)
    assert next(lines) == "first"
    with pytest.raises(CommandFailed, match="no word for 2 s") as caught:
        next(lines)
    assert caught.value.last_words == "first"
    assert not _running(room, "sleep 3456")


# What Linux keeps for ordinary processes beside real-time ones is taken, too: 5 % by the limit, 5 % by the fair server.
HOG = """
import os, pathlib, subprocess
os.sched_setaffinity(0, {1})
debug = pathlib.Path("/sys/kernel/debug")
if not (debug / "sched").exists():
    subprocess.run(["mount", "-t", "debugfs", "debugfs", debug], check=True)
pathlib.Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1")
fair = debug / "sched/fair_server/cpu1/runtime"
if fair.exists():
    fair.write_text("0")
os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(99))
print("on", flush=True)
while True:
    pass
"""


def test_a_processor_that_serves_nobody_is_a_stall() -> None:
    """As one that lost its timer, it leaves the others to answer; here a process of the highest priority has it."""
    with lab.up(lab.LabMachine(name="stalls", drives=())) as stalls:
        stalls.channel.ping()
        words = stalls.stream(["python3", "-c", HOG])
        assert next(words) == "on"
        with pytest.raises(lab.LabStalled, match="does not answer"):
            stalls.channel.ping(timeout=10)


def test_failure_names_the_command(room: lab.Lab) -> None:
    with pytest.raises(CommandFailed, match=r"exit status 3") as caught:
        room.run(["sh", "-c", "echo why >&2; exit 3"])
    assert caught.value.last_words.strip() == "why"
    assert "ssh" not in caught.value.command


def test_death_by_signal_is_told_as_a_shell_tells_it(room: lab.Lab) -> None:
    assert room.run(["sh", "-c", "kill -KILL $$"], check=False).returncode == 128 + signal.SIGKILL


def test_a_missed_deadline_ends_the_command_inside(room: lab.Lab) -> None:
    with pytest.raises(CommandFailed, match="no end within"):
        room.run(["sleep", "4321"], timeout=3)
    assert not _running(room, "sleep 4321")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_inside(room: lab.Lab, number: signal.Signals) -> None:
    with subprocess.Popen(
        _nvlane("lab", "run", "--name", NAME, "--", "sh", "-c", "echo on; exec sleep 8765"), stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
        child.send_signal(number)
        assert child.wait(30) != 0
    assert not _running(room, "sleep 8765")


def _running(room: lab.Lab, command: str) -> bool:
    return room.run(["pgrep", "-xf", command], check=False).returncode == 0


def test_files_go_in_and_out(room: lab.Lab) -> None:
    content = bytes(range(256)) * 999
    room.put(content, "/root/a file", mode=0o640)
    assert room.get("/root/a file") == content
    assert room.run(["stat", "-c", "%a", "/root/a file"]).stdout.strip() == "640"


def test_pull_insert_and_reset(room: lab.Lab) -> None:
    """What a crash test needs: drives that vanish and come back, and a host that reboots and keeps its disks."""
    boot = room.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    room.put(b"kept", "/var/lib/kept")
    room.pull("LABDRIVE1")
    assert _address(room, "LABDRIVE1") == ""
    room.insert("LABDRIVE1")
    room.reset()
    assert room.run(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot
    assert room.get("/var/lib/kept") == b"kept"
    assert _address(room, "LABDRIVE1")
    with pytest.raises(HostError, match="LABSIBA cannot be plugged in"):
        room.insert("LABSIBA")


def test_names_that_are_none() -> None:
    with pytest.raises(SpecError, match="lab name"):
        lab.up(lab.LabMachine(name="../x"))
    with pytest.raises(HostError, match="nvlane lab up"):
        lab.find("nobody")
