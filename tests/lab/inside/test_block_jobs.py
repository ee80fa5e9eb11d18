"""Snapshots, mirrors, backups, limits and sizes of the disks of one machine, while its guest writes to them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_work import MIB, Up, machine, nvlane, write_spec
from guest_fio import fio_at_work, fio_verified, with_fio

from nvlane.apply import process
from nvlane.model.claim import Locator
from nvlane.qemu import blocks
from nvlane.verify.look import Look

pytestmark = pytest.mark.lab

SIZE = 24 * MIB


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """On the lab's disk: it has direct I/O, which a file system in memory has not."""
    path = Path(f"/var/tmp/jobs-{os.getpid()}")
    path.mkdir()
    yield path
    for left in path.iterdir():
        left.unlink()
    path.rmdir()


@pytest.fixture(scope="module")
def up(work: Path) -> Iterator[Up]:
    (work / "data.raw").write_bytes(os.urandom(SIZE))
    spec = write_spec(
        work,
        "jobs",
        f'kind = "emulated"\nname = "data"\nwrite_proof = true\nnamespaces = [{{ image = "{work}/data.raw" }}]',
        'kind = "userspace"\nname = "drive"\ndrive = "serial:LABSPARE"\nfrontend = "virtio-blk"',
        'kind = "vhost-user"\nname = "memory"\nmalloc = "32MiB"',
        **with_fio(),
    )
    with machine(spec) as running:
        yield running


def path_of(up: Up, locator: Locator) -> str:
    with up.guest() as guest, up.monitor() as monitor:
        return Look(guest=guest, monitor=monitor).path(locator)


DATA = Locator(device_id="data", nsid=1)
DRIVE, MEMORY = Locator(device_id="drive"), Locator(device_id="memory")


def write(up: Up, path: str, offset: int, seed: int) -> str:
    """A mebibyte of a pattern: the digest of what the guest wrote and read back."""
    with up.guest() as guest:
        said = guest.call("write_pattern", deadline=60.0, device=path, offset=offset, length=MIB, seed=seed)
    assert said["read_back"] == said["sha256"]
    return str(said["sha256"])


def digest(up: Up, path: str, offset: int = 0, length: int = MIB) -> str:
    with up.guest() as guest:
        return guest.digest(path, [(offset, length)])


def on_host(path: Path, offset: int) -> str:
    """A mebibyte of an image, of whatever format, as QEMU's own tools read it."""
    plain = path.with_suffix(".plain")
    process.run(["qemu-img", "convert", "-U", "-O", "raw", str(path), str(plain)])
    with plain.open("rb") as file:
        file.seek(offset)
        part = file.read(MIB)
    plain.unlink()
    return hashlib.sha256(part).hexdigest()


def disks(up: Up) -> dict[str, str]:
    return {disk["name"]: disk["path"] for disk in up.status()["disks"]}


def writes(up: Up) -> int:
    """How many writes of the guest to the disk of the lane 'data' are complete."""
    with up.monitor() as monitor:
        found = monitor.execute("query-blockstats")
    return sum(one["stats"]["wr_operations"] for one in found if "data" in one.get("qdev", ""))


def test_snapshot(up: Up, work: Path) -> None:
    path = path_of(up, DATA)
    before = write(up, path, 4 * MIB, 1)
    said = nvlane("snapshot", "jobs", "data", "--to", work / "snap.qcow2", "--json").ok().json
    assert said["spec"].endswith(f'image = "{work}/snap.qcow2", format = "qcow2"')
    after = write(up, path, 4 * MIB, 2)
    assert on_host(work / "data.raw", 4 * MIB) == before
    assert digest(up, path, 4 * MIB) == after
    assert disks(up)["data"] == str(work / "snap.qcow2")
    assert nvlane("verify", "jobs", "--no-write").ok()


def test_mirror_while_the_guest_writes(up: Up, work: Path) -> None:
    """Over to a file of another format; the snapshot and what is below it are no longer needed."""
    path = path_of(up, DATA)
    kept = digest(up, path, 4 * MIB)
    with fio_at_work(up.runtime, path, 8 * MIB, lambda: writes(up)):
        nvlane("mirror", "jobs", "data", "--to", work / "moved.raw", "--speed", "16MiB").ok()
    fio_verified(up.runtime)
    assert disks(up)["data"] == str(work / "moved.raw")
    seen = digest(up, path, 8 * MIB)
    assert (on_host(work / "moved.raw", 8 * MIB), on_host(work / "moved.raw", 4 * MIB)) == (seen, kept)
    with up.monitor() as monitor:
        assert [name for name in blocks.nodes(monitor) if name.startswith("data-")] == ["data-mirror1"]
    assert nvlane("verify", "jobs", "--no-write").ok()


@pytest.mark.usefixtures("up")
def test_limits_by_the_target() -> None:
    found = nvlane("throttle", "jobs", "memory", "--iops", "1500", "--bps-write", "10MiB", "--json").ok().json
    assert found["limits"] == {"iops": 2000, "bps_wr": 10 * MIB}
    assert nvlane("throttle", "jobs", "memory", "--burst-iops", "9", "--iops", "1").status == 3
    assert nvlane("throttle", "jobs", "memory", "--clear", "--json").ok().json["limits"] == {}


def test_resized_by_the_target(up: Up) -> None:
    path = path_of(up, MEMORY)
    assert nvlane("resize", "jobs", "memory", "16MiB").status == 3
    nvlane("resize", "jobs", "memory", "48MiB").ok()
    assert nvlane("verify", "jobs", "--no-write").ok()
    assert size(up, path) == 48 * MIB


def size(up: Up, path: str) -> int:
    with up.guest() as guest:
        found: list[dict[str, Any]] = guest.inventory()["block"]
    return next(int(block["size_bytes"]) for block in found if block["path"] == path)


def test_from_a_drive_to_a_file_that_grows(up: Up, work: Path) -> None:
    path = path_of(up, DRIVE)
    refused = nvlane("resize", "jobs", "drive", "1GiB")
    assert refused.status == 3
    assert "nvlane mirror" in refused.err
    seen, was = digest(up, path), size(up, path)
    nvlane("mirror", "jobs", "drive", "--to", work / "drive.qcow2").ok()
    nvlane("resize", "jobs", "drive", str(was + 8 * MIB)).ok()
    assert (digest(up, path), size(up, path)) == (seen, was + 8 * MIB)
    assert nvlane("verify", "jobs", "--no-write").ok()
    nvlane("detach", "jobs", "drive").ok()
    with up.monitor() as monitor:
        assert not [node for node in blocks.nodes(monitor) if node.startswith("drive")]


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        (("resize", "jobs", "data", "64MiB"), "'resize' is unshared by the device"),
        (("snapshot", "jobs", "memory", "--to", "/var/tmp/never"), "not through QEMU's block layer"),
        (("mirror", "jobs", "data", "--to", "/dev/vda"), "is in use"),
    ],
)
def test_an_honest_no(up: Up, verb: tuple[str, ...], words: str) -> None:
    before = up.status()
    said = nvlane(*verb)
    assert said.status == 3, str(said)
    assert words in said.err
    assert up.status() == before
