"""What a guest stored in persistent memory is there after QEMU was killed, and after the machine went down and up.

The lab's own NVDIMM is two namespaces for that: one as a DAX device, one with a file system mounted with DAX. On them
and on a file in the page cache stand NVDIMMs and a virtio-pmem of a guest, which stores through PMDK's libpmem.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from at_work import MIB, Up, alive, blank, machine, nvlane, unchanged, write_spec
from spare import wait

from nvlane.apply import process
from nvlane.model.errors import WireError
from nvlane.verify.pattern import pattern
from nvlane.verify.probe import ProbeGuest

pytestmark = pytest.mark.lab

LENGTH = 2 * MIB
MOUNT = Path("/mnt/lab-dax")
FILE = MOUNT / "file.raw"
NFIT = Path("/sys/bus/acpi/drivers/nfit")


@pytest.fixture(scope="module")
def heap() -> Iterator[str]:
    """The DAX device; beside it, MOUNT has a file system with DAX. Afterwards the NVDIMM is raw again."""
    there = {name for name in ("device_dax", "dax_pmem", "nd_btt") if Path(f"/sys/module/{name}").exists()}
    process.run(["modprobe", "-a", "device_dax", "dax_pmem", "nd_btt"])
    change_labels("init-labels", "--force")
    heap = made("--mode=devdax", "--size=256M")
    disk = made("--mode=fsdax", "--size=512M")
    process.run(["mkfs.ext4", "-q", "-F", "-b", "4096", f"/dev/{disk['blockdev']}"])
    MOUNT.mkdir()
    process.run(["mount", "-o", "dax", f"/dev/{disk['blockdev']}", str(MOUNT)])
    device = f"/dev/{heap['daxregion']['devices'][0]['chardev']}"
    blank(device)
    yield device
    process.run(["umount", str(MOUNT)])
    MOUNT.rmdir()
    for one in (heap, disk):
        process.run(["ndctl", "destroy-namespace", "--force", one["dev"]])
    change_labels("zero-labels")
    # The kernel remembers that there were labels until the driver finds the NVDIMM anew (NDD_LABELING).
    for how in ("unbind", "bind"):
        (NFIT / how).write_text("ACPI0012:00")
    process.run(["modprobe", "-r", *sorted({"dax_pmem", "device_dax"} - there)], check=False)


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory on a disk: what is on tmpfs outlives nothing."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="nvlane-kept-") as place:
        yield Path(place)


def change_labels(how: str, *options: str) -> None:
    process.run(["ndctl", "disable-region", "region0"])
    process.run(["ndctl", how, *options, "nmem0"])
    process.run(["ndctl", "enable-region", "region0"])


def made(*options: str) -> Any:
    return json.loads(process.run(["ndctl", "create-namespace", "--region=region0", *options]).stdout)


def spec(work: Path, heap: str, *, read_only: bool = False) -> Path:
    """Every backing that outlives QEMU, each in a mode of its own."""
    only = "read_only = true\n" if read_only else ""
    return write_spec(
        work,
        "kept",
        f'kind = "nvdimm"\nname = "heap"\nbacking = "dax"\npath = "{heap}"\nmode = "devdax"',
        f'kind = "nvdimm"\nname = "file"\nbacking = "file"\npath = "{FILE}"\nsize = "128MiB"\n'
        'mode = "fsdax"\nfilesystem = "ext4"\nmountpoint = "/mnt/file"',
        f'kind = "nvdimm"\nname = "sector"\nbacking = "file"\npath = "{MOUNT}/sector.raw"\nsize = "64MiB"\n'
        f'{only}mode = "sector"',
        f'kind = "nvdimm"\nname = "virtio"\nbacking = "file"\npath = "{work}/virtio.raw"\nsize = "64MiB"\n'
        'mode = "fsdax"\nfilesystem = "ext4"\nmountpoint = "/mnt/virtio"',
        memory="384MiB",
    )


@dataclass(frozen=True, kw_only=True)
class Places:
    """What the guest stores into: what libpmem maps, and the disk of the sector namespace."""

    mapped: tuple[tuple[str, bool], ...]  # path, and whether it is persistent memory
    disk: str

    @classmethod
    def of(cls, guest: ProbeGuest) -> Places:
        names = {n["mode"]: n["blockdev"] or n["chardev"] for n in guest.call("inventory")["nvdimm"]["namespaces"]}
        mapped = ((f"/dev/{names['devdax']}", True), ("/mnt/file/kept", True), ("/mnt/virtio/kept", False))
        return cls(mapped=mapped, disk=f"/dev/{names['sector']}")


def store(guest: ProbeGuest, seed: int) -> None:
    """Through libpmem, made durable by its own call; and to the sectors."""
    places = Places.of(guest)
    for path, is_pmem in places.mapped:
        done = guest.call("pmem_check", deadline=120, path=path, length=LENGTH, write=True, seed=seed)
        assert (done["is_pmem"], done["read_back"]) == (is_pmem, True), path
        assert done["persisted_by"] == ("pmem_persist" if is_pmem else "pmem_msync")
    assert guest.call("write_pattern", deadline=120, device=places.disk, offset=MIB, length=MIB, seed=seed)["matches"]


def assert_stored(guest: ProbeGuest, seed: int) -> None:
    places = Places.of(guest)
    for path, _ in places.mapped:
        assert found(guest, path, seed), path
        assert not found(guest, path, seed + 1), "any pattern would do"
    assert_sectors(guest, seed)


def found(guest: ProbeGuest, path: str, seed: int) -> bool:
    return bool(guest.call("pmem_check", deadline=120, path=path, length=LENGTH, compare=True, seed=seed)["read_back"])


def assert_sectors(guest: ProbeGuest, seed: int) -> None:
    digest = guest.call("digest", deadline=120, device=Places.of(guest).disk, ranges=[[MIB, MIB]])["sha256"]
    assert digest == hashlib.sha256(pattern(seed, MIB)).hexdigest()


def domains(guest: ProbeGuest) -> set[str]:
    """Up to where stores are safe, in the words of the guest's kernel, of all NVDIMMs."""
    regions = guest.call("inventory")["nvdimm"]["regions"]
    return {one["persistence_domain"] for one in regions if one["provider"] == "nfit"}


@contextlib.contextmanager
def doomed(spec: Path) -> Iterator[Up]:
    """A machine whose QEMU ends with SIGKILL, in the middle of everything."""
    with unchanged():
        said = nvlane("up", "--json", spec)
        pid = nvlane("status", "kept", "--json").ok().json["pid"]
        try:
            yield Up(name="kept", said=said.ok())
        finally:
            os.kill(pid, signal.SIGKILL)
            wait("QEMU has ended", lambda: not alive(pid))
            nvlane("restore").ok()


def test_stores_outlive_a_killed_qemu_and_a_machine_that_went_down(heap: str, work: Path) -> None:
    with doomed(spec(work, heap)) as up, up.guest() as guest:
        assert up.wrong() == []
        kept = {lane: up.found(lane, "keeps") for lane in ("heap", "file", "sector", "virtio")}
        assert {kept["heap"], kept["file"], kept["sector"]} == {"every flushed store, past a power failure"}
        assert kept["virtio"] == "what was synced, past a power failure"
        assert domains(guest) == {"memory_controller"}
        with unchanged():
            second = nvlane(
                "up", write_spec(work, "second", f'kind = "nvdimm"\nbacking = "file"\npath = "{FILE}"\nsize = "128MiB"')
            )
        assert second.status == 3, str(second)
        assert f"{FILE} has an open file handle" in second.err
        store(guest, 41)

    with machine(spec(work, heap)) as up, up.guest() as guest:
        assert not [e for e in up.value["evidence"] if e["lane"] == "heap" and "pattern" in e["claim"]], "it was full"
        assert_stored(guest, 41)
        store(guest, 51)

    with machine(spec(work, heap, read_only=True)) as up, up.guest() as guest:
        assert_stored(guest, 51)
        assert up.found("sector", "read-only") == "True"
        with pytest.raises(WireError, match=r"write|open"):
            guest.call("write_pattern", device=Places.of(guest).disk, offset=MIB, length=MIB, seed=1)
        assert_sectors(guest, 51)
