"""The two ends of a fabric in the lab: why a Host cannot connect, and a kill in the middle; a drive that is exported,
plugged and unplugged; a guest over Fibre Channel."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import machine, nvlane, nvlane_alone, unchanged, write_spec
from fabric_room import (
    FIRST,
    NQN,
    NVMET,
    at_target,
    exported,
    fabrics_lane,
    host_nqn,
    networks,
    target_files,
)
from lab_drives import wait
from spare import spare_drive

from nvlane.apply import process
from nvlane.lab.fcloop import HOST_ADDRESS, TARGET_ADDRESS, fibre_channel

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module", autouse=True)
def apart() -> Iterator[None]:
    with networks():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return target_files(tmp_path_factory.mktemp("target"))


def _connect(*words: str | Path, nqn: str = NQN) -> str:
    """A connection that fails, and leaves nothing; what was said."""
    with unchanged():
        said = nvlane("fabrics", "connect", "c", "--nqn", nqn, "--address", FIRST, *words)
    assert said.status not in (0, 5), str(said)
    assert "DHHC" not in said.err + said.out
    return said.err


def test_why_a_host_cannot_connect(files: list[Path], tmp_path: Path) -> None:
    keys = [tmp_path / f"key{number}" for number in range(2)]
    for key in keys:
        key.write_text(process.run(["nvme", "gen-dhchap-key"]).stdout)
        key.chmod(0o600)
    with exported("--file", files[0], "--address", FIRST, "--secret", keys[0]):
        nvlane("fabrics", "connect", "c", "--nqn", NQN, "--address", FIRST, "--secret", keys[0]).ok()
        nvlane("fabrics", "disconnect", "c").ok()
        wrong = _connect(nqn="nqn.2014-08.org.example:disk")
        assert "has no subsystem nqn.2014-08.org.example:disk" in wrong
        assert f"it offers: {NQN}" in wrong
        assert "does not allow the host" in _connect("--host-nqn", "nqn.2014-08.org.example:stranger")
        assert "wants a key of this host" in _connect()
        assert "the authentication failed" in _connect("--secret", keys[1])
        assert "nothing listens at" in _connect("--port", "4421")


def test_both_ends_say_who_they_are(files: list[Path], tmp_path: Path) -> None:
    """Authentication in both directions: the Host has a key, and so has the Target."""
    mine, theirs, wrong = [tmp_path / f"key{number}" for number in range(3)]
    for key in (mine, theirs, wrong):
        key.write_text(process.run(["nvme", "gen-dhchap-key"]).stdout)
        key.chmod(0o600)
    here = ("--secret", mine)
    with exported("--file", files[0], "--address", FIRST, *here, "--controller-secret", theirs):
        nvlane("fabrics", "connect", "c", "--nqn", NQN, "--address", FIRST, *here, "--controller-secret", theirs).ok()
        nvlane("fabrics", "disconnect", "c").ok()
        assert "the Target has not the key of controller_secret" in _connect(*here, "--controller-secret", wrong)


@pytest.mark.parametrize("record", [5, 11, 16, 22])
def test_restore_after_a_kill_in_the_middle_of_an_export(files: list[Path], record: int) -> None:
    with unchanged():
        with at_target():
            words = ["--nqn", NQN, "--allow", host_nqn(), "--file", files[0], "--address", FIRST]
            died = nvlane_alone("fabrics", "export", "disks", *words, env={"NVLANE_DIE_AFTER_RECORD": str(record)})
        assert died.status == -signal.SIGKILL, str(died)
        nvlane("restore").ok()
        assert not NVMET.exists()


def _controllers() -> list[Path]:
    """Those over tcp, whether they are connected or not yet."""
    return [file.parent for file in Path("/sys/class/nvme").glob("nvme*/transport") if "tcp" in file.read_text()]


def test_restore_after_a_kill_while_the_kernel_connects(files: list[Path], tmp_path: Path) -> None:
    words = ["fabrics", "connect", "c", "--nqn", NQN, "--address", FIRST]
    with exported("--file", files[0], "--address", FIRST), unchanged():
        with _silent_target():
            pid = process.spawn([sys.executable, "-m", "nvlane", *words], log=tmp_path / "log")
            wait("the kernel connects", lambda: bool(_controllers()), 60.0)
            os.kill(pid, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        nvlane("restore").ok()
        wait("no controller is left", lambda: not _controllers())
        nvlane(*words).ok()
        nvlane("fabrics", "disconnect", "c").ok()


@contextmanager
def _silent_target() -> Iterator[None]:
    """The Target does not answer: no connection is refused, and none is made."""
    with at_target():
        process.run(["ip", "link", "set", "target0", "down"])
    try:
        yield
    finally:
        with at_target():
            process.run(["ip", "link", "set", "target0", "up"])


@pytest.mark.parametrize("record", [3, 5])
def test_restore_after_a_kill_in_the_middle_of_a_connect(files: list[Path], record: int) -> None:
    with exported("--file", files[0], "--address", FIRST), unchanged():
        words = ["--nqn", NQN, "--address", FIRST]
        died = nvlane_alone("fabrics", "connect", "c", *words, env={"NVLANE_DIE_AFTER_RECORD": str(record)})
        assert died.status == -signal.SIGKILL, str(died)
        nvlane("restore").ok()
        assert _controllers() == []


def test_a_drive_is_exported_and_its_namespace_plugged(files: list[Path], tmp_path: Path) -> None:
    sources = ("--file", files[0], "--file", files[2], "--drive", "serial:LABSPARE")
    with spare_drive(), exported(*sources, "--address", FIRST):
        taken = nvlane("fabrics", "export", "again", "--drive", "serial:LABSPARE", "--address", FIRST, "--allow-any")
        assert taken.status == 3, str(taken)
        assert "nvmet exports it" in taken.err
        lanes = (
            fabrics_lane("scsi", address=FIRST, frontend="virtio-scsi"),
            fabrics_lane("sata", address=FIRST, namespace=3, frontend="sata", block_size=512),
        )
        with machine(write_spec(tmp_path, "fronts", *lanes)) as running:
            assert running.wrong() == []
            lane = tmp_path / "hot.toml"
            lane.write_text("[[lane]]\n" + fabrics_lane("hot", address=FIRST, namespace=2, frontend="nvme"))
            said = nvlane("attach", "--json", running.name, lane).ok().json
            assert [piece for piece in said["evidence"] if not piece["ok"]] == []
            nvlane("detach", "--json", running.name, "hot").ok()
            # The connection stays, for it is the other lanes' too.
            assert not [words for words in running.status()["to_undo"] if "hot/namespace" in words]
            assert len(_controllers()) == 1


def test_a_guest_over_fibre_channel(files: list[Path], tmp_path: Path) -> None:
    with fibre_channel(), exported("--file", files[1], "--transport", "fc", "--address", TARGET_ADDRESS):
        lane = fabrics_lane("fc", transport="fc", address=TARGET_ADDRESS, host_address=HOST_ADDRESS)
        with machine(write_spec(tmp_path, "overfc", lane)) as running:
            assert running.wrong() == []
            seen = nvlane("fabrics", "list", "--json").ok().json
            assert [one["transport"] for one in seen["connections"]] == ["fc"]
