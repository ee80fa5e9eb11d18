"""The vhost-user lane in the lab: a drive, a file, a block device and nothing, each behind a target of its own."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, write_spec
from lab_drives import node

from nvlane.apply import process
from nvlane.verify.guest import GuestFault

pytestmark = pytest.mark.lab

FILE = bytes(range(256)) * 4096 * 4  # 4 MiB


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("vhost")
    (work / "old.raw").write_bytes(FILE)
    spec = write_spec(
        work,
        "vhost",
        'kind = "vhost-user"\nname = "drive"\ndrive = "serial:LABSPARE"\nqueues = 2\nwrite_proof = true',
        f'kind = "vhost-user"\nname = "new"\nfile = "{work}/new.raw"\nsize = "64MiB"\nwrite_proof = true',
        f'kind = "vhost-user"\nname = "old"\nfile = "{work}/old.raw"\nread_only = true',
        f'kind = "vhost-user"\nname = "device"\nfile = "{node("LABDRIVE1")}"\nread_only = true',
        'kind = "vhost-user"\nname = "null"\nnull = "1GiB"\nblock_size = 4096',
    )
    with machine(spec) as running:
        yield running
    # Nothing that a target was told to leave alone was changed.
    assert (work / "old.raw").read_bytes() == FILE


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


def test_every_link_has_its_peer(up: Up) -> None:
    links = [piece for piece in up.value["evidence"] if piece["claim"] == "vhost-user link"]
    assert {piece["lane"]: piece["found"] for piece in links} == dict.fromkeys(
        ("drive", "new", "old", "device", "null"), "connected"
    )


def test_content_of_drive_file_and_device(up: Up) -> None:
    digests = {piece["lane"] for piece in up.value["evidence"] if "SHA-256" in piece["claim"]}
    assert {"drive", "old", "device"} <= digests


def test_queues_are_equal_on_both_ends(up: Up) -> None:
    with up.monitor() as monitor:
        asked = monitor.execute("qom-get", {"path": "/machine/peripheral/drive", "property": "num-queues"})
    arguments = " ".join(process.run(["ps", "-ww", "-o", "args=", "-C", "qemu-storage-daemon"]).stdout.split())
    served = {int(number) for number in re.findall(r'num-queues"?[=:]\s?(\d+)', arguments)}
    assert asked == 2
    assert asked in served


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
    assert len([path for path in sockets if path.name == "vhost.sock"]) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in sockets} == {0o600}
    with up.monitor() as monitor:
        assert {backend["share"] for backend in monitor.execute("query-memdev")} == {True}


def test_targets_are_sandboxed_processes_of_their_own(up: Up) -> None:
    targets = [step for step in up.status()["to_undo"] if step.startswith("start qemu-storage-daemon")]
    assert len(targets) == 5
    running = process.run(["pgrep", "-f", "^[^ ]*qemu-storage-daemon"]).stdout.split()
    assert len(running) == 5
    assert all(int(pid) != os.getpid() for pid in running)


def disk(up: Up, lane: str) -> str:
    """The guest's name of a lane's disk, from the evidence."""
    return next(
        Path(piece["claim"].split()[0]).name
        for piece in up.value["evidence"]
        if piece["lane"] == lane and piece["claim"].startswith("/dev/")
    )
