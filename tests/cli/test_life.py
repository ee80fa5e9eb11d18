"""A machine's life through the command line, each verb from a process of its own, with a real QEMU.

Its disk is blank, so its firmware finds nothing to boot: what a guest sees is for the lab's tests to say.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Program

QEMU = "qemu-system-x86_64"

pytestmark = pytest.mark.skipif(
    shutil.which(QEMU) is None or shutil.which("qemu-img") is None, reason=f"no {QEMU} or qemu-img on this machine"
)

SPEC = """[machine]
name = "vm"
memory = "128MiB"
cpus = 1
accelerator = "tcg"
image = "boot.img"
image_format = "raw"

[[lane]]
kind = "emulated"
name = "data"
namespaces = [{ image = "data.qcow2", size = "64MiB" }]
"""
LANE = '[[lane]]\nkind = "emulated"\nname = "more"\nnamespaces = [{ image = "more.img", size = "32MiB" }]\n'


@pytest.fixture
def vm(nvlane: Program) -> Iterator[Program]:
    """A program with a spec, and no machine left behind whatever the test does."""
    (nvlane.directory / "vm.toml").write_text(SPEC)
    (nvlane.directory / "lane.toml").write_text(LANE)
    with (nvlane.directory / "boot.img").open("wb") as image:
        image.truncate(1 << 20)
    yield nvlane
    if nvlane.state.exists():
        ended = [nvlane("down", "--all", "--shutdown", "0"), nvlane("restore")]
        assert [done.returncode for done in ended] == [0, 0], ended


def _status(vm: Program) -> dict[str, object]:
    done = vm("status", "vm", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _up(vm: Program, **environment: str) -> dict[str, object]:
    done = vm("up", "vm.toml", "--no-verify", "--json", **environment)
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def _leaves(vm: Program) -> set[str]:
    left = {str(path.relative_to(vm.directory)) for path in vm.directory.rglob("*")}
    return {path for path in left if path.split("/")[0] in ("state", "run") or path.endswith((".img", ".qcow2"))}


def _has_ended(pid: object) -> bool:
    """Gone, or a zombie that the machine's process 1 has not reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_up_status_down(vm: Program) -> None:
    before = _leaves(vm)
    result = _up(vm)
    assert set(result["seconds"]) >= {"facts", "plan", "apply"}  # type: ignore[call-overload]
    for name in ("qmp", "console"):
        socket = os.stat(str(result[name]))  # noqa: PTH116 - its mode is what is asked
        assert stat.S_ISSOCK(socket.st_mode)
        assert stat.S_IMODE(socket.st_mode) == 0o600
    seen = _status(vm)
    assert seen["state"] == "up"
    assert [lane["name"] for lane in seen["lanes"]] == ["data"]  # type: ignore[attr-defined]
    text = vm("status").stdout
    assert "vm" in text
    assert "up" in text
    done = vm("down", "vm", "--shutdown", "0")
    assert done.returncode == 0, done.stderr
    assert "the host is as it was" in done.stderr
    assert _leaves(vm) == before
    assert _has_ended(seen["pid"])


def test_a_machine_is_up_once(vm: Program) -> None:
    _up(vm)
    again = vm("up", "vm.toml", "--no-verify")
    assert again.returncode == 3
    assert "[machine-runs]" in again.stderr
    assert _status(vm)["state"] == "up"
    left_alone = vm("restore", "vm")
    assert left_alone.returncode == 1
    assert "nvlane down vm" in left_alone.stderr


def test_attach_and_down(vm: Program) -> None:
    before = _leaves(vm)
    _up(vm)
    done = vm("attach", "vm", "lane.toml", "--no-verify", "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["attached"] == "more"
    assert [lane["name"] for lane in value["lanes"]] == ["data", "more"]
    twice = vm("attach", "vm", "lane.toml", "--no-verify")
    assert twice.returncode == 2
    assert "both called 'more'" in twice.stderr
    unknown = vm("detach", "vm", "nothing")
    assert unknown.returncode == 1
    assert "its lanes are: data, more" in unknown.stderr
    assert vm("down", "vm", "--shutdown", "0").returncode == 0
    assert _leaves(vm) == before


def test_its_qemu_is_killed(vm: Program) -> None:
    before = _leaves(vm)
    _up(vm)
    pid = _status(vm)["pid"]
    assert isinstance(pid, int)
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGKILL)
        import select

        assert select.select([process], [], [], 10.0)[0]
    finally:
        os.close(process)
    seen = _status(vm)
    assert seen["state"] == "left"
    assert "its QEMU has ended" in str(seen["why"])
    done = vm("restore", "--json")
    assert done.returncode == 0, done.stderr
    (went,) = json.loads(done.stdout)
    assert went["machine"] == "vm"
    assert went["restored"]
    assert _leaves(vm) == before


@pytest.mark.parametrize("record", [1, 3, 6, 9, 12])
def test_nvlane_is_killed_in_the_middle(vm: Program, record: int) -> None:
    before = _leaves(vm)
    killed = vm("up", "vm.toml", "--no-verify", NVLANE_DIE_AFTER_RECORD=str(record))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert _status(vm)["state"] == "left"
    assert "nvlane restore vm" in vm("status").stderr
    done = vm("restore")
    assert done.returncode == 0, done.stderr
    assert _leaves(vm) == before


def test_a_step_fails_and_all_is_undone(vm: Program) -> None:
    """QEMU ends at once on an argument that it does not know."""
    (vm.directory / "vm.toml").write_text(SPEC.replace("cpus = 1", 'cpus = 1\nqemu_args = ["-no-such-option"]'))
    before = _leaves(vm)
    done = vm("up", "vm.toml", "--no-verify")
    assert done.returncode == 1
    assert "no-such-option" in done.stderr
    assert "Traceback" not in done.stderr
    assert _leaves(vm) == before
    kept = vm("up", "vm.toml", "--no-verify", "--keep-on-failure")
    assert kept.returncode == 1
    assert _status(vm)["state"] == "left"
    assert vm("restore", "vm").returncode == 0
    assert _leaves(vm) == before


def test_forget(vm: Program) -> None:
    vm("up", "vm.toml", "--no-verify", NVLANE_DIE_AFTER_RECORD="6")
    done = vm("restore", "--forget", "vm")
    assert done.returncode == 0
    assert "vm: not undone: make the directory" in done.stdout
    assert vm("status", "--json").stdout == "[]\n"
    shutil.rmtree(vm.runtime, ignore_errors=True)


def test_a_damaged_journal_is_named(vm: Program) -> None:
    vm("up", "vm.toml", "--no-verify", NVLANE_DIE_AFTER_RECORD="6")
    journal = vm.state / "runs" / "vm" / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([lines[0], lines[1].replace(b"vm", b"xx", 1), *lines[2:]]))
    assert _status(vm)["state"] == "damaged"
    done = vm("restore", "vm")
    assert done.returncode == 1
    assert "journal.jsonl, line 2" in done.stderr
    assert vm("restore", "--forget", "vm").returncode == 0
    shutil.rmtree(vm.runtime, ignore_errors=True)
