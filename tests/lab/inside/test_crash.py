"""What goes wrong with machines, and what is left afterwards: nothing. Nobody looks into these guests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from at_work import alive, nvlane, nvlane_alone, unchanged, write_spec
from lab_drives import address, driver_of, wait

pytestmark = pytest.mark.lab


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
        nvlane("down", "short").ok()


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
        assert nvlane("status", "--json").ok().json == []  # nothing to undo either


def test_interrupted_while_the_guest_boots(tmp_path: Path) -> None:
    """Ctrl-C: the machine is up by then and stays, and nvlane says what is left to undo."""
    # -S: its processor never starts, so the guest never answers.
    spec = write_spec(tmp_path, "patient", memory="128MiB", qemu_args=["-S"])
    with unchanged():
        said = nvlane_alone("up", spec, under=("timeout", "--preserve-status", "--signal=INT", "20"))
        assert said.status == 130, str(said)
        assert "interrupted" in said.err
        assert nvlane("status", "patient", "--json").ok().json["state"] == "up"
        nvlane("down", "patient").ok()


def test_a_guest_that_never_answers(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "mute", memory="128MiB", qemu_args=["-S"])
    with unchanged():
        said = nvlane("up", "--json", "--timeout", "2", spec)
        assert said.status == 1, str(said)
        assert "did not come up within 2 s" in said.json["error"]["message"]
        assert "console.log" in said.json["error"]["remedy"]
        assert nvlane("status", "mute", "--json").ok().json["state"] == "up"
        nvlane("down", "mute").ok()


def test_specs_are_checked_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('[machine]\nname = "bad"\nmemroy = "1GiB"\n')
    with unchanged():
        said = nvlane("up", "--json", tmp_path / "bad.toml")
    assert said.status == 2
    assert "memory" in said.json["error"]["message"] + said.json["error"]["remedy"]
    assert said.json["error"]["line"] == 3
