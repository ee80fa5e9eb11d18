"""A machine moves to a second QEMU while its guest writes: what was written before, during and after is read in the
guest, and everything that the guest was told is written is there. Twice away, and once not: where its disk goes to runs
full."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from at_work import MIB, Up, alive, machine, nvlane, write_spec
from guest_fio import BLOCK, SIZE, fio_at_work, fio_verified, with_fio
from spare import modules_as_before

from nvlane.apply import process
from nvlane.model.claim import Locator
from nvlane.model.errors import WireError
from nvlane.qemu import blocks, inspect
from nvlane.verify.look import Look
from nvlane.verify.probe import ProbeGuest
from nvlane.wire.qmp import Qmp

pytestmark = pytest.mark.lab

LANES = (
    'kind = "vhost-user"\nname = "data"\nfile = "{work}/data.raw"\nsize = "24MiB"\nwrite_proof = true',
    'kind = "userspace"\nname = "drive"\ndrive = "serial:LABSPARE"\nfrontend = "virtio-blk"',
)


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    path = Path(f"/var/tmp/migrate-{os.getpid()}")
    path.mkdir()
    yield path
    for left in path.iterdir():
        left.unlink()
    path.rmdir()


@pytest.fixture(scope="module")
def up(work: Path) -> Iterator[Up]:
    spec = write_spec(work, "move", *(lane.format(work=work) for lane in LANES), **with_fio())
    with machine(spec) as running:
        yield running


def runtime(up: Up) -> Path:
    """The directory of the QEMU that the machine runs in now."""
    return Path(up.status()["qmp"]).parent


@contextmanager
def guest_in(directory: Path) -> Iterator[ProbeGuest]:
    with ProbeGuest(directory / "probe.sock") as guest:
        guest.wait_until_up(deadline=120.0)
        yield guest


def path_of(directory: Path, lane: str) -> str:
    with guest_in(directory) as guest, Qmp.connect(str(directory / "qmp.sock"), deadline=60) as monitor:
        return Look(guest=guest, monitor=monitor).path(Locator(device_id=lane))


def write(guest: ProbeGuest, path: str, place: int, seed: int) -> str:
    """A mebibyte at this mebibyte, read back by the guest: its digest."""
    said = guest.call("write_pattern", deadline=300.0, device=path, offset=place * MIB, length=MIB, seed=seed)
    assert said["read_back"] == said["sha256"]
    return str(said["sha256"])


@contextmanager
def writing(directory: Path, path: str, places: range) -> Iterator[dict[int, str]]:
    """The guest writes one mebibyte after the other until the end, or until its channel goes with the first QEMU:
    place -> digest, of all that was answered. The last one may have no answer."""
    written, ended = dict[int, str](), list[WireError]()
    enough, begun = threading.Event(), threading.Event()

    def again() -> None:
        try:
            with guest_in(directory) as guest:
                for number in range(10_000):
                    if enough.is_set():
                        return
                    place = places[number % len(places)]
                    written.pop(place, None)
                    written[place] = write(guest, path, place, number + 1)
                    begun.set()
        except WireError as error:
            ended.append(error)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        assert begun.wait(300)
        yield written
    finally:
        enough.set()
        thread.join(320)
    assert not thread.is_alive()
    assert not ended or "socket" in ended[0].message or "probe.sock" in ended[0].message, ended


def all_there(directory: Path, path: str, written: dict[int, str]) -> None:
    with guest_in(directory) as guest:
        for place, digest in written.items():
            assert guest.digest(path, [(place * MIB, MIB)]) == digest, f"lost: what was written at {place} MiB"


def test_a_place_that_runs_full(up: Up, work: Path) -> None:
    """There is room when it is asked for, and somebody else takes it: the guest goes on at its drive."""
    directory, place, before = runtime(up), work / "small", up.status()
    path, stop = path_of(directory, "drive"), threading.Event()
    with small_file_system(work, place), writing(directory, path, range(16, 24)) as written:
        other = threading.Thread(target=fill_while_copying, args=(directory, place, stop))
        other.start()
        try:
            said = nvlane("migrate", "move", "--copy-storage", place, "--speed", "16MiB")
        finally:
            stop.set()
            other.join(120)
        assert not other.is_alive()
        assert (said.status, "No space left on device" in said.err) == (1, True), str(said)
        assert sorted(entry.name for entry in place.iterdir()) == ["lost+found", "other"]
    after = up.status()
    assert [after[key] for key in ("state", "pid", "qmp", "disks", "work")] == [
        before[key] for key in ("state", "pid", "qmp", "disks", "work")
    ]
    all_there(directory, path, written)


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


def fill_while_copying(directory: Path, place: Path, stop: threading.Event) -> None:
    """Take the room away as soon as a copy has begun."""
    while not stop.wait(0.5):
        with Qmp.connect(str(directory / "qmp.sock"), deadline=60) as monitor:
            begun = any(0 < job.done < job.total for job in blocks.jobs(monitor))
        if begun:
            free = os.statvfs(place)
            process.run(["fallocate", "-l", str((free.f_bavail - 64) * free.f_frsize), str(place / "other")])
            return


def test_a_drive_becomes_a_file_on_the_way(up: Up, work: Path) -> None:
    """Two QEMUs cannot drive one controller; a file they can share, one after the other."""
    was = runtime(up)
    path = path_of(was, "drive")
    refused = nvlane("migrate", "move")
    assert (refused.status, "[drive-not-shared]" in refused.err) == (3, True), str(refused)
    with guest_in(was) as guest:
        boot, seen = guest.hello().boot_id, guest.digest(path, [(0, 8 * MIB)])
    with writing(was, path, range(32, 96)) as written:
        moved = nvlane("migrate", "move", "--copy-storage", work, "--json").ok().json
        assert moved["disks"] == {"drive": f"{work}/drive.raw"}
    now = runtime(up)
    assert now != was
    all_there(now, path, written)
    with guest_in(now) as guest:
        assert (guest.hello().boot_id, guest.digest(path, [(0, 8 * MIB)])) == (boot, seen)
        last = write(guest, path, 9, 99)
        assert guest.digest(path, [(9 * MIB, MIB)]) == last
    assert nvlane("verify", "move", "--no-write").ok()


def blocks_at(file: Path, offset: int) -> int:
    """How many blocks there hold anything."""
    with file.open("rb") as opened:
        opened.seek(offset)
        data = opened.read(SIZE)
    return sum(any(data[at : at + BLOCK]) for at in range(0, SIZE, BLOCK))


def test_while_the_guest_writes(up: Up, work: Path) -> None:
    """What the guest had under way when it stood still ends in the second QEMU, whose target has the same file. A lane
    that was attached goes along, and the guest lets go of it there."""
    (work / "more.toml").write_text(
        f'[[lane]]\nkind = "vhost-user"\nname = "more"\nfile = "{work}/more.raw"\nsize = "8MiB"\n'
    )
    nvlane("attach", "move", work / "more.toml").ok()
    was, pid = runtime(up), up.status()["pid"]
    path = path_of(was, "data")
    with guest_in(was) as guest:
        boot, before = guest.hello().boot_id, write(guest, path, 4, 1)
    with fio_at_work(was, path, 8 * MIB, lambda: blocks_at(work / "data.raw", 8 * MIB)):
        moved = nvlane("migrate", "move", "--json").ok().json
    now = up.status()
    assert (now["state"], now["pid"]) == ("up", moved["pid"])
    assert not alive(pid)
    fio_verified(runtime(up))
    all_there(runtime(up), path, {4: before})
    with guest_in(runtime(up)) as guest:
        assert guest.hello().boot_id == boot
        after = write(guest, path, 13, 99)
        assert guest.digest(path, [(13 * MIB, MIB)]) == after
    assert nvlane("verify", "move").ok()
    nvlane("detach", "move", "more").ok()
    with Qmp.connect(moved["qmp"], deadline=60) as monitor:
        assert "more" not in inspect.device_ids(monitor)
