"""The two ends of a fabric in the lab without a guest, and Fibre Channel with one: why a Host cannot connect, and a
kill in the middle."""

from __future__ import annotations

import signal
from collections.abc import Iterator
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


@pytest.mark.parametrize("record", [5, 11, 16, 22])
def test_restore_after_a_kill_in_the_middle_of_an_export(files: list[Path], record: int) -> None:
    with unchanged():
        with at_target():
            words = ["--nqn", NQN, "--allow", host_nqn(), "--file", files[0], "--address", FIRST]
            died = nvlane_alone("fabrics", "export", "disks", *words, env={"NVLANE_DIE_AFTER_RECORD": str(record)})
        assert died.status == -signal.SIGKILL, str(died)
        nvlane("restore").ok()
        assert not NVMET.exists()


def test_a_guest_over_fibre_channel(files: list[Path], tmp_path: Path) -> None:
    with fibre_channel(), exported("--file", files[1], "--transport", "fc", "--address", TARGET_ADDRESS):
        lane = fabrics_lane("fc", transport="fc", address=TARGET_ADDRESS, host_address=HOST_ADDRESS)
        with machine(write_spec(tmp_path, "overfc", lane)) as running:
            assert running.wrong() == []
            seen = nvlane("fabrics", "list", "--json").ok().json
            assert [one["transport"] for one in seen["connections"]] == ["fc"]
