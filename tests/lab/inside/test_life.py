"""A machine's life, each verb in a process of its own: up, status, attach, verify, detach, down; and what goes wrong."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import GIB, MIB, Up, machine, nvlane, nvlane_alone, snapshot, unchanged, write_spec
from lab_drives import address, driver_of, wait

from nvlane.apply.snapshot import differences

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running machine with one lane and memory that a target can reach."""
    work = tmp_path_factory.mktemp("life")
    lane = f'kind = "emulated"\nname = "first"\nnamespaces = [{{ image = "{work}/first.raw", size = "32MiB" }}]'
    with machine(write_spec(work, "life", lane, memory_backing="memfd")) as running:
        yield running


LANES = {
    "emulated": 'kind = "emulated"\nnamespaces = [{{ image = "{work}/hot.raw", size = "64MiB" }}]\nwrite_proof = true',
    "vhost-user": 'kind = "vhost-user"\nfile = "{work}/hot.raw"\nsize = "64MiB"\nwrite_proof = true',
    "vhost-user-drive": 'kind = "vhost-user"\ndrive = "serial:LABSPARE"',
    "userspace": 'kind = "userspace"\ndrive = "serial:LABSPARE"\nfrontend = "virtio-scsi"',
    "passthrough": 'kind = "passthrough"\ndrive = "serial:LABSPARE"',
}


@pytest.mark.parametrize("kind", LANES)
def test_attach_verify_detach(up: Up, tmp_path: Path, kind: str) -> None:
    lane = tmp_path / "hot.toml"
    lane.write_text(f'[[lane]]\nname = "hot"\n{LANES[kind].format(work=tmp_path)}\n')
    before = snapshot()
    attached = nvlane_alone("attach", up.name, lane, "--json").ok().json
    assert attached["attached"] == "hot"
    assert {piece["lane"] for piece in attached["evidence"]} == {"first", "hot"}
    assert attached["verified"] is True
    assert nvlane_alone("verify", up.name, "--no-write").ok()
    detached = nvlane_alone("detach", up.name, "hot", "--json").ok().json
    assert [one["name"] for one in detached["lanes"]] == ["first"]
    assert differences(before, snapshot()) == ()
    assert nvlane("verify", up.name).ok()


@pytest.mark.parametrize(
    ("lane", "code"),
    [
        ('kind = "nvdimm"\nbacking = "memory"\nsize = "64MiB"', "nvdimm-hotplug"),
        ('kind = "userspace"\ndrive = "serial:LABSPARE"\nfrontend = "sata"', "frontend-hotplug"),
        ('kind = "emulated"\nvfs = 1\nnamespaces = [{ image = "/tmp/x", size = "1MiB" }]', "emulated-hotplug"),
        ('kind = "passthrough"\ndrive = "serial:LABMOUNT"', "drive-mount"),
    ],
)
def test_attach_refuses(up: Up, tmp_path: Path, lane: str, code: str) -> None:
    (tmp_path / "hot.toml").write_text(f"[[lane]]\n{lane}\n")
    with unchanged():
        said = nvlane("attach", up.name, tmp_path / "hot.toml", "--json")
    assert said.status == 3, str(said)
    assert code in [one["code"] for one in said.json["error"]["refusals"]]


def test_a_name_that_is_taken(up: Up, tmp_path: Path) -> None:
    with unchanged():
        said = nvlane("up", "--json", write_spec(tmp_path, up.name))
    assert said.status == 3, str(said)
    (refusal,) = said.json["error"]["refusals"]
    assert (refusal["code"], refusal["remedy"]) == ("machine-runs", "nvlane down life, or choose another name")


def test_a_dead_link_is_found(up: Up, tmp_path: Path) -> None:
    """Verification can fail: the target is killed, which QEMU itself shows only in query-chardev."""
    (tmp_path / "hot.toml").write_text('[[lane]]\nkind = "vhost-user"\nname = "hot"\nnull = "64MiB"\n')
    nvlane("attach", up.name, tmp_path / "hot.toml").ok()
    target = target_of(up)
    os.kill(target, signal.SIGKILL)
    wait("the target has ended", lambda: not alive(target))
    said = nvlane("verify", up.name, "--json")
    assert said.status == 4, str(said)
    wrong = [piece for piece in said.json["evidence"] if not piece["ok"]]
    assert [(piece["lane"], piece["claim"], piece["found"]) for piece in wrong][:1] == [
        ("hot", "vhost-user link", "disconnected")
    ]
    nvlane("detach", up.name, "hot").ok()
    assert nvlane("verify", up.name).ok()


def target_of(up: Up) -> int:
    """The process of the one target that serves the machine."""
    name = str(up.runtime / "hot")
    (found,) = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdecimal() and name in cmdline(entry) and "qemu-storage-daemon" in cmdline(entry).split("\0")[0]
    ]
    return found


def cmdline(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


# Machines that need no guest: they are up, and nobody looks inside.


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    lanes = (
        'kind = "passthrough"\ndrive = "serial:LABDRIVE1"',
        f'kind = "vhost-user"\nfile = "{tmp_path}/file.raw"\nsize = "16MiB"',
    )
    return write_spec(tmp_path, "short", *lanes, memory="128MiB", memory_backing="hugepages", node=0)


def test_down_twice(spec: Path) -> None:
    with unchanged():
        nvlane_alone("up", "--no-verify", spec).ok()
        assert nvlane_alone("down", "short").ok()
        again = nvlane_alone("down", "short")
    assert again.status == 1
    assert "there is no run 'short'" in again.err


def test_qemu_is_killed(spec: Path) -> None:
    with unchanged():
        nvlane("up", "--no-verify", spec).ok()
        pid = nvlane("status", "short", "--json").ok().json["pid"]
        os.kill(pid, signal.SIGKILL)
        wait("QEMU has ended", lambda: not alive(pid))
        status = nvlane_alone("status", "short", "--json").ok().json
        assert (status["state"], status["pid"]) == ("left", None)
        assert "its QEMU has ended" in status["why"]
        assert driver_of_drive1() == "vfio-pci"
        refused = nvlane("verify", "short")
        assert refused.status == 1
        assert "nvlane restore short" in refused.err
        assert nvlane_alone("restore").ok()
    assert driver_of_drive1() == "nvme"


def driver_of_drive1() -> str:
    try:
        return driver_of(address("LABDRIVE1"))
    except AssertionError:
        return "vfio-pci"  # the kernel's nvme driver shows no controller


def test_restore_leaves_a_machine_alone_that_is_up(spec: Path) -> None:
    with unchanged():
        nvlane("up", "--no-verify", spec).ok()
        assert "nothing was left by a crash" in nvlane("restore").ok().err
        refused = nvlane("restore", "short")
        assert refused.status == 1
        assert "nvlane down short" in refused.err
        nvlane("down", "--all").ok()


def test_a_torn_journal(spec: Path) -> None:
    """A crash in the middle of a write: the last line is half there. One before it may not be damaged."""
    with unchanged():
        nvlane("up", "--no-verify", spec).ok()
        journal = Path("/var/lib/nvlane/runs/short/journal.jsonl")
        whole = journal.read_bytes()
        journal.write_bytes(whole.replace(b'"LoadModule"', b'"LoadModulf"', 1))
        damaged = nvlane("restore", "short")
        assert damaged.status == 1, str(damaged)
        assert "line" in damaged.err
        assert nvlane("status", "short", "--json").ok().json["state"] == "damaged"
        journal.write_bytes(whole + whole.splitlines()[-1][:20])
        assert nvlane("status", "short", "--json").ok().json["state"] == "up"
        nvlane("down", "short").ok()


def test_two_machines_share_the_hugepages(tmp_path: Path) -> None:
    """Each reserves its own; the first that goes leaves the other its pages."""
    pool = Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
    with unchanged():
        before = int(pool.read_text())
        for name in ("one", "two"):
            nvlane("up", "--no-verify", huge(tmp_path, name)).ok()
        assert int(pool.read_text()) == before + 128
        nvlane("down", "one").ok()
        assert int(pool.read_text()) == before + 64
        assert nvlane("status", "two", "--json").ok().json["state"] == "up"
        nvlane("down", "two").ok()
        assert int(pool.read_text()) == before


def huge(tmp_path: Path, name: str) -> Path:
    return write_spec(tmp_path, name, memory="128MiB", memory_backing="hugepages", node=0)


def test_a_step_that_fails_is_undone_at_once(tmp_path: Path) -> None:
    lane = 'kind = "passthrough"\ndrive = "serial:LABDRIVE1"'
    spec = write_spec(tmp_path, "broken", lane, qemu_args=["-device", "no-such-device"])
    with unchanged():
        said = nvlane_alone("up", "--json", spec)
        assert said.status == 1, str(said)
        assert "no-such-device" in said.json["error"]["message"]
        assert nvlane("status", "--json").ok().json == []


def test_interrupted_while_the_guest_boots(tmp_path: Path) -> None:
    """Ctrl-C: the machine is up by then and stays, and nvlane says what is left to undo."""
    spec = write_spec(tmp_path, "patient", memory="128MiB", qemu_args=["-S"])
    with unchanged():
        script = 'import os,signal,threading; threading.Timer(8, os.kill, (os.getpid(), signal.SIGINT)).start();'
        said = nvlane_alone("up", spec, under=("timeout", "--signal=INT", "15"))
        assert script
        assert said.status in (124, 130), str(said)
        assert "interrupted" in said.err
        assert nvlane("status", "patient", "--json").ok().json["state"] == "up"
        nvlane("down", "patient").ok()


def test_specs_are_checked_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[machine]\nname = "bad"\nmemroy = "1GiB"\n')
    with unchanged():
        said = nvlane("up", "--json", tmp_path / "bad.toml")
    assert said.status == 2
    assert "memory" in said.json["error"]["message"] + said.json["error"]["remedy"]
    assert said.json["error"]["line"] == 3
    assert GIB > MIB
