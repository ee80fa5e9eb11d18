"""A machine moves while its guest writes: a drive becomes a file on the way, and a place that runs full leaves
everything where it was. Each mebibyte that the guest was told is written is looked for afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, nvlane, write_spec
from spare import modules_as_before

from nvlane.apply import process
from nvlane.model.claim import Locator
from nvlane.model.errors import WireError
from nvlane.qemu import blocks
from nvlane.verify.look import Look
from nvlane.verify.probe import ProbeGuest

pytestmark = pytest.mark.lab

#: Where the guest writes, in mebibytes: each pattern has a place of its own.
PLACES = range(16, 480)


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    path = Path(f"/var/tmp/storage-{os.getpid()}")
    path.mkdir()
    yield path
    for left in path.iterdir():
        left.unlink()
    path.rmdir()


@pytest.fixture(scope="module")
def up(work: Path) -> Iterator[Up]:
    lane = 'kind = "userspace"\nname = "drive"\ndrive = "serial:LABSPARE"\nfrontend = "virtio-blk"'
    with machine(write_spec(work, "away", lane, memory="192MiB")) as running:
        yield running


def path_of(up: Up) -> str:
    with up.guest() as guest, up.monitor() as monitor:
        return Look(guest=guest, monitor=monitor).path(Locator(device_id="drive"))


@contextmanager
def writing(up: Up, path: str) -> Iterator[dict[int, str]]:
    """The guest writes one mebibyte after the other until the end, or until its channel goes with the first QEMU: place
    -> digest of what the guest wrote there, of all that it was told is written."""
    written = dict[int, str]()
    enough = threading.Event()

    def again() -> None:
        try:
            with up.guest() as guest:
                for place in PLACES:
                    if enough.is_set():
                        return
                    done = guest.call(
                        "write_pattern", deadline=120.0, device=path, offset=place * MIB, length=MIB, seed=place
                    )
                    written[place] = str(done["sha256"])
        except WireError as error:
            ended.append(error)

    ended = list[WireError]()
    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield written
    finally:
        enough.set()
        thread.join(180)
    assert not thread.is_alive()
    assert not ended or "socket" in ended[0].message, ended
    assert len(written) > 1


def all_there(guest: ProbeGuest, path: str, written: dict[int, str]) -> None:
    for place, digest in written.items():
        assert guest.digest(path, [(place * MIB, MIB)]) == digest, f"lost: what was written at {place} MiB"


def test_a_place_that_runs_full(up: Up, work: Path) -> None:
    """There is room when it is asked for, and somebody else takes it: the guest goes on at its drive."""
    path, place, before = path_of(up), work / "small", up.status()
    with small_file_system(work, place), writing(up, path) as written:
        argv = [sys.executable, "-m", "nvlane", "migrate", "away", "--copy-storage", str(place), "--speed", "16MiB"]
        moving = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            wait_until_copying(up, moving)
            free = os.statvfs(place)
            process.run(["fallocate", "-l", str((free.f_bavail - 64) * free.f_frsize), str(place / "other")])
            printed, _ = moving.communicate(timeout=300)
        finally:
            moving.kill()
            moving.wait()
        assert (moving.returncode, "No space left on device" in printed) == (1, True), printed
        assert sorted(entry.name for entry in place.iterdir()) == ["lost+found", "other"]
        assert up.status() == {**before, "evidence": up.status()["evidence"]}
    with up.guest() as guest:
        all_there(guest, path, written)


@contextmanager
def small_file_system(work: Path, place: Path) -> Iterator[None]:
    """With room for a copy of the drive, and little more."""
    image = work / "small.img"
    with image.open("wb") as file:
        file.truncate(620 * MIB)
    process.run(["mkfs.ext4", "-q", "-m", "0", "-E", "nodiscard", str(image)])
    place.mkdir()
    with modules_as_before():
        process.run(["modprobe", "loop"])
        process.run(["mount", "-o", "loop", str(image), str(place)])
        try:
            yield
        finally:
            process.run(["umount", str(place)])
            place.rmdir()
            image.unlink()


def wait_until_copying(up: Up, moving: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and moving.poll() is None:
        with up.monitor() as monitor:
            if any(0 < job.done < job.total for job in blocks.jobs(monitor)):
                return
        time.sleep(0.2)
    raise AssertionError(f"no copy began: {moving.communicate(timeout=60)}")


def test_a_drive_becomes_a_file_on_the_way(up: Up, work: Path) -> None:
    copy, path = work / "drive.raw", path_of(up)
    refused = nvlane("migrate", "away")
    assert (refused.status, "[drive-not-shared]" in refused.err) == (3, True), str(refused)
    with up.guest() as guest:
        boot, seen = guest.hello().boot_id, guest.digest(path, [(0, 8 * MIB)])
    with writing(up, path) as written:
        moved = nvlane("migrate", "away", "--copy-storage", work, "--json").ok().json
        assert moved["disks"] == {"drive": str(copy)}
    with ProbeGuest(Path(moved["qmp"]).parent / "probe.sock") as guest:
        guest.wait_until_up(deadline=60.0)
        assert guest.hello().boot_id == boot
        all_there(guest, path, written)
        last = guest.call("write_pattern", deadline=60.0, device=path, offset=8 * MIB, length=MIB, seed=9)
        assert (guest.digest(path, [(0, 8 * MIB)]), guest.digest(path, [(8 * MIB, MIB)])) == (seen, last["sha256"])
    assert nvlane("verify", "away", "--no-write").ok()
