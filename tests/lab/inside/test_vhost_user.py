"""The vhost-user lane in the lab: a drive, files, a block device, memory and nothing, each behind an nvlane-target of
its own, behind both front ends; and what becomes of a guest whose target dies."""

from __future__ import annotations

import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_work import MIB, Up, alive, machine, nvlane, write_spec
from lab_drives import node, wait

from nvlane.verify.guest import GuestFault
from nvlane.wire.jsonrpc import JsonRpc

pytestmark = pytest.mark.lab

FILE = bytes(range(256)) * 4096 * 4  # 4 MiB
LANES = ("drive", "new", "old", "device", "null", "memory")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("vhost")
    (work / "old.raw").write_bytes(FILE)
    scsi = 'frontend = "virtio-scsi"'
    spec = write_spec(
        work,
        "vhost",
        'kind = "vhost-user"\nname = "drive"\ndrive = "serial:LABSPARE"\nqueues = 2\nwrite_proof = true',
        f'kind = "vhost-user"\nname = "new"\n{scsi}\nfile = "{work}/new.raw"\nsize = "64MiB"\nwrite_proof = true',
        f'kind = "vhost-user"\nname = "old"\nfile = "{work}/old.raw"\nread_only = true',
        f'kind = "vhost-user"\nname = "device"\nfile = "{node("LABDRIVE1")}"\nread_only = true',
        'kind = "vhost-user"\nname = "null"\nnull = "1GiB"\nblock_size = 4096',
        f'kind = "vhost-user"\nname = "memory"\n{scsi}\nmalloc = "32MiB"\ncores = "0-1"',
    )
    with machine(spec) as running:
        yield running
    # Nothing that a target was told to leave alone was changed.
    assert (work / "old.raw").read_bytes() == FILE


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


def test_every_link_has_its_peer(up: Up) -> None:
    links = [piece for piece in up.value["evidence"] if piece["claim"] == "vhost-user link"]
    assert {piece["lane"]: piece["found"] for piece in links} == dict.fromkeys(LANES, "connected")


def test_content_of_drive_file_and_device(up: Up) -> None:
    digests = {piece["lane"] for piece in up.value["evidence"] if "SHA-256" in piece["claim"]}
    assert {"drive", "old", "device"} <= digests


@pytest.mark.parametrize("lane", ["old", "device"])
def test_read_only(up: Up, lane: str) -> None:
    assert up.found(lane, "read-only") == "True"
    with up.guest() as guest, pytest.raises(GuestFault):
        guest.call("write_pattern", device=f"/dev/{disk(up, lane)}", offset=MIB, length=4096, seed=1)


def test_null_keeps_nothing_in_blocks_of_4096(up: Up) -> None:
    assert up.found("null", "block bytes") == "4096"
    with up.guest() as guest:
        wrote = guest.call("write_pattern", device=f"/dev/{disk(up, 'null')}", offset=MIB, length=4096, seed=1)
    assert wrote["read_back"] != wrote["sha256"]


def test_sockets_are_private_and_memory_is_shared(up: Up) -> None:
    sockets = [path for path in up.runtime.rglob("*") if path.is_socket()]
    assert len([path for path in sockets if path.name == "vhost.sock"]) == len(LANES)
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    with up.monitor() as monitor:
        assert {backend["share"] for backend in monitor.execute("query-memdev")} == {True}


def test_targets_are_processes_of_their_own(up: Up) -> None:
    targets = nvlane("target", "status", "--json").ok().json
    assert {seen["target"] for seen in targets} == {f"{up.name}.{lane}" for lane in LANES}
    assert len({seen["pid"] for seen in targets} - {os.getpid()}) == len(LANES)


def test_the_drives_own_driver_and_what_it_serves(up: Up) -> None:
    view = target(up, "drive")
    (bdev,) = view["bdevs"]
    assert bdev["product_name"] == "NVMe disk"
    (controller,) = view["controllers"]
    assert len(controller["sessions"]) == 1


def test_reactors_are_where_the_spec_wants_them(up: Up) -> None:
    assert [reactor["lcore"] for reactor in target(up, "memory")["reactors"]] == [0, 1]


@pytest.mark.parametrize("lane", ["drive", "new", "memory"])
@pytest.mark.parametrize("how", ["killed", "replaced"])
def test_a_guest_that_writes_loses_nothing(up: Up, lane: str, how: str) -> None:
    """The target ends in the middle of a write and is started anew; the guest waits, and reads back what it wrote.

    Memory is new with its process: there it is the write itself that must end without an error."""
    answers: list[dict[str, Any]] = []

    def write() -> None:
        with up.guest() as guest:
            asked = {"device": f"/dev/{disk(up, lane)}", "offset": MIB, "length": 16 * MIB, "seed": 7}
            answers.append(guest.call("write_pattern", deadline=240.0, **asked))

    before = target(up, lane)
    done = written(up, lane)
    writer = threading.Thread(target=write)
    writer.start()
    wait("the guest writes", lambda: written(up, lane) > done)
    if how == "killed":
        os.kill(before["pid"], signal.SIGKILL)
        wait("the target has ended", lambda: not alive(before["pid"]))
        nvlane("target", "start", f"{up.name}.{lane}").ok()
    else:
        nvlane("target", "restart", f"{up.name}.{lane}").ok()
    writer.join(240)
    assert len(answers) == 1, "the guest's write did not end"
    after = target(up, lane)
    assert after["pid"] != before["pid"]
    assert [bdev["name"] for bdev in after["bdevs"]] == [bdev["name"] for bdev in before["bdevs"]]
    if lane != "memory":
        assert answers[0]["read_back"] == answers[0]["sha256"]


def test_verification_names_the_lane_whose_target_is_dead(up: Up) -> None:
    pid = target(up, "old")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait("the target has ended", lambda: not alive(pid))
    begun = time.monotonic()
    said = nvlane("verify", up.name, "--json")
    assert time.monotonic() - begun < 60
    assert said.status == 4, str(said)
    wrong = {(piece["lane"], piece["claim"]) for piece in said.json["evidence"] if not piece["ok"]}
    assert wrong == {("old", "vhost-user link")}
    nvlane("target", "start", f"{up.name}.old").ok()
    assert nvlane("verify", up.name, "--json").ok().json["verified"]


def target(up: Up, lane: str) -> dict[str, Any]:
    """What a lane's target says of itself."""
    view: dict[str, Any] = nvlane("target", "status", f"{up.name}.{lane}", "--json").ok().json
    return view


def written(up: Up, lane: str) -> int:
    """Bytes that were written to a lane's bdev since its target started."""
    with JsonRpc.connect(str(up.runtime / lane / "rpc.sock")) as target:
        return sum(bdev["bytes_written"] for bdev in target.call("bdev_get_iostat")["bdevs"])


def disk(up: Up, lane: str) -> str:
    """The guest's name of a lane's disk, from the evidence."""
    return next(
        Path(piece["claim"].split()[0]).name
        for piece in up.value["evidence"]
        if piece["lane"] == lane and piece["claim"].startswith("/dev/")
    )
