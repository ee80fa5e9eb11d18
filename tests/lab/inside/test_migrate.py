"""A machine moves to a second QEMU while its guest writes to a file behind nvlane-target: what was written before,
during and after is read in the guest and on the host."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, alive, machine, nvlane, write_spec

from nvlane.model.claim import Locator
from nvlane.model.errors import WireError
from nvlane.verify.look import Look
from nvlane.verify.probe import ProbeGuest

pytestmark = pytest.mark.lab


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
    lane = f'kind = "vhost-user"\nname = "data"\nfile = "{work}/data.raw"\nsize = "24MiB"\nwrite_proof = true'
    with machine(write_spec(work, "move", lane, memory="192MiB")) as running:
        yield running


def write(guest: ProbeGuest, path: str, offset: int, seed: int) -> str:
    said = guest.call("write_pattern", deadline=120.0, device=path, offset=offset, length=MIB, seed=seed)
    assert said["read_back"] == said["sha256"]
    return str(said["sha256"])


def test_while_the_guest_writes(up: Up) -> None:
    """The guest's request that was under way when it stood still is answered in the second QEMU."""
    with up.guest() as guest, up.monitor() as monitor:
        path = Look(guest=guest, monitor=monitor).path(Locator(device_id="data"))
        before = write(guest, path, 4 * MIB, 1)
        boot = guest.hello().boot_id
    was = up.status()
    written, ended = list[str](), list[str]()
    enough = threading.Event()

    def again() -> None:
        with up.guest() as guest:
            while not enough.is_set():
                written.append(write(guest, path, 8 * MIB, len(written) + 2))

    # The channel to the guest is the first QEMU's, and ends with it: the last pattern may have no answer.
    thread = threading.Thread(target=lambda: _until_it_ends(again, ended))
    thread.start()
    try:
        moved = nvlane("migrate", "move", "--json").ok().json
    finally:
        enough.set()
        thread.join(180)
    assert not thread.is_alive()
    assert written
    now = up.status()
    assert (now["state"], now["pid"]) == ("up", moved["pid"])
    assert not alive(was["pid"])
    assert not ended or "socket" in ended[0] or "probe.sock" in ended[0]
    with ProbeGuest(Path(moved["qmp"]).parent / "probe.sock") as guest:
        guest.wait_until_up(deadline=60.0)
        assert guest.hello().boot_id == boot
        assert guest.digest(path, [(4 * MIB, MIB)]) == before
        after = write(guest, path, 12 * MIB, 99)
        assert guest.digest(path, [(12 * MIB, MIB)]) == after
    assert nvlane("verify", "move").ok()


def _until_it_ends(deed: Callable[[], None], ended: list[str]) -> None:
    try:
        deed()
    except WireError as error:
        ended.append(error.message)
