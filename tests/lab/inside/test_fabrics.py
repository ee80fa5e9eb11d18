"""NVMe over Fabrics in the lab: a guest writes and the Target reads, over tcp with two paths; a path and a Target that
go away under the guest, under fio in it and under fio on the Host, and come back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, nvlane, write_spec
from fabric_room import (
    FIRST,
    SECOND,
    at_target,
    export,
    exported,
    fabrics_lane,
    fio_verifies,
    namespace_writes,
    networks,
    target_files,
    unexport,
)
from lab_drives import wait

from nvlane.apply import fio_kit, process
from nvlane.apply.initramfs import build_probe_guest
from nvlane.verify.pattern import pattern

pytestmark = pytest.mark.lab
SEED = 2026


@pytest.fixture(scope="module", autouse=True)
def apart() -> Iterator[None]:
    with networks():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return target_files(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def up(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`machine` sees that the host and the Target read what the guest wrote, when it goes down."""
    words = [word for file in files for word in ("--file", str(file))]
    both = {"address": FIRST, "paths": [SECOND]}
    with exported(*words, "--address", FIRST, "--address", SECOND):
        guest = build_probe_guest(os.uname().release, pmem_tools=False, fio=fio_kit.host_kit())
        spec = write_spec(
            tmp_path_factory.mktemp("fabrics"),
            "fabrics",
            fabrics_lane("blk", **both),
            fabrics_lane("target", **both, namespace=2, engine="nvlane", frontend="virtio-scsi"),
            fabrics_lane("nvme", **both, namespace=3, frontend="nvme"),
            memory="512MiB",
            kernel=guest.kernel,
            initrd=guest.initrd,
            cmdline=guest.cmdline,
        )
        with machine(spec) as running:
            yield running


def test_the_guest_has_the_namespaces_that_the_target_exports(up: Up) -> None:
    assert up.wrong() == []
    assert {piece["lane"] for piece in up.value["evidence"] if "SHA-256" in piece["claim"]} == {"blk", "target", "nvme"}
    seen = nvlane("fabrics", "list", "--json").ok().json
    assert {(one["address"], one["state"]) for one in seen["connections"]} == {(FIRST, "live"), (SECOND, "live")}
    assert len({ns["device"] for one in seen["connections"] for ns in one["namespaces"]}) == 4


def _write(up: Up, device: str, seed: int) -> threading.Thread:
    """Let the guest write in the background."""

    def write() -> None:
        with up.guest() as guest:
            guest.call("write_pattern", deadline=120.0, device=device, offset=8 * MIB, length=4 * MIB, seed=seed)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def _at_target(file: Path) -> bytes:
    with file.open("rb") as opened:
        opened.seek(8 * MIB)
        return opened.read(4 * MIB)


def test_a_lost_path_is_not_noticed_and_comes_back(up: Up, files: list[Path]) -> None:
    device = next(piece["claim"].split()[0] for piece in up.value["evidence"] if piece["lane"] == "blk")
    with fio_verifies(4):
        with at_target():
            process.run(["ip", "link", "set", "target0", "down"])
        try:
            thread = _write(up, device, SEED)
            thread.join(120.0)
            assert not thread.is_alive()
        finally:
            with at_target():
                process.run(["ip", "link", "set", "target0", "up"])
    assert _at_target(files[0]) == pattern(SEED, 4 * MIB)
    wait("both paths are live", lambda: _states() == {"live"}, 90.0)


def test_fio_in_the_guest_verifies_while_both_paths_are_lost(up: Up) -> None:
    device = next(piece["claim"].split()[0] for piece in up.value["evidence"] if piece["lane"] == "blk")
    # Slow enough that a fast guest is not through before its paths are lost.
    job = "--rw=randwrite --bs=4k --offset=16M --size=2M --rate_iops=,60 --direct=1 --ioengine=psync --thread"
    proof = "--verify=crc32c --verify_fatal=1 --do_verify=1 --allow_file_create=0"
    argv = [*fio_kit.words(fio_kit.PLACE), "--name=paths", f"--filename={device}", *job.split(), *proof.split()]
    with up.guest() as guest, ThreadPoolExecutor(max_workers=1) as pool:
        before = namespace_writes(1)
        done = pool.submit(guest.call, "exec", deadline=300.0, argv=argv, timeout_ms=290_000)
        wait("fio writes", lambda: namespace_writes(1) > before + 64 or done.done(), 200.0)
        assert not done.done()
        try:
            _paths("down")
            wait("the Host has noticed", lambda: "live" not in _states(), 120.0)
            lost = namespace_writes(1)
            assert lost - before < 2 * MIB // 4096
        finally:
            _paths("up")
        ended = done.result()
    assert ended["status"] == 0, ended
    assert "err= 0" in ended["stdout"]
    assert namespace_writes(1) - before >= 2 * MIB // 4096
    wait("both paths are live", lambda: _states() == {"live"}, 90.0)


def _paths(state: str) -> None:
    with at_target():
        for number in range(2):
            process.run(["ip", "link", "set", f"target{number}", state])


def _states() -> set[str]:
    return {one["state"] for one in nvlane("fabrics", "list", "--json").ok().json["connections"]}


def test_the_guest_waits_for_a_target_that_is_booted_anew(up: Up, files: list[Path]) -> None:
    device = next(piece["claim"].split()[0] for piece in up.value["evidence"] if piece["lane"] == "blk")
    with fio_verifies(4):
        unexport().ok()
        wait("the Host has noticed", lambda: "live" not in _states(), 60.0)
        thread = _write(up, device, SEED + 1)
        thread.join(2.0)
        assert thread.is_alive(), "nothing can have been written: there is no Target"
        words = [word for file in files for word in ("--file", str(file))]
        export(*words, "--address", FIRST, "--address", SECOND).ok()
        thread.join(120.0)
        assert not thread.is_alive()
    assert _at_target(files[0]) == pattern(SEED + 1, 4 * MIB)
    wait("both paths are live", lambda: _states() == {"live"}, 90.0)


def test_a_namespace_that_a_guest_has_is_not_given_to_another(up: Up, tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "second", fabrics_lane("blk", address=FIRST))
    said = nvlane("up", spec)
    assert said.status == 3, str(said)
    assert "in use on this host" in said.err
    assert up.status()["state"] == "up"
