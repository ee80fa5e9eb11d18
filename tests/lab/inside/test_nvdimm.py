"""The nvdimm lane in the lab: every backing and every mode in one guest with two NUMA nodes."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_work import GIB, MIB, Up, machine, nvlane, write_spec
from lab_pmem import as_dax_device

from nvlane.model.claim import Locator, PmemNamespaceClaim
from nvlane.model.errors import WireError
from nvlane.verify.look import Look
from nvlane.verify.pmem_namespace import find_or_make

pytestmark = pytest.mark.lab

#: The number of the system call on every architecture (include/uapi/asm-generic/unistd.h).
CACHESTAT = 451


@pytest.fixture(scope="module")
def dax_device() -> Iterator[str]:
    with as_dax_device() as device:
        yield device


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """On a disk: on tmpfs there is nothing to flush to."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="nvlane-nvdimm-") as place:
        yield Path(place)


@pytest.fixture(scope="module")
def up(work: Path, dax_device: str) -> Iterator[Up]:
    spec = write_spec(
        work,
        "nvdimm",
        'kind = "nvdimm"\nname = "huge"\nbacking = "hugepages"\nsize = "144MiB"\nlabel = "2MiB"\nguest_node = 1\n'
        "namespaces = [\n"
        '{ name = "files", size = "64MiB", mode = "fsdax", align = "4KiB", filesystem = "ext4", '
        'mountpoint = "/mnt/huge" },\n'
        '{ name = "log", size = "32MiB", mode = "sector", filesystem = "ext4", mountpoint = "/mnt/log" },\n'
        '{ name = "heap", size = "32MiB", mode = "devdax", align = "4KiB" },\n'
        '{ name = "plain", size = "16MiB" },\n]',
        f'kind = "nvdimm"\nname = "dax"\nbacking = "dax"\npath = "{dax_device}"\nmode = "fsdax"\n'
        'filesystem = "xfs"\nmountpoint = "/mnt/dax"',
        'kind = "nvdimm"\nname = "memory"\nbacking = "memory"\nsize = "60MiB"\nlabel = "128KiB"',
        f'kind = "nvdimm"\nname = "file"\nbacking = "file"\npath = "{work}/nvdimm.raw"\nsize = "32MiB"\n'
        'device = "nvdimm"\narmed = true\nwrite_proof = true',
        f'kind = "nvdimm"\nname = "virtio"\nbacking = "file"\npath = "{work}/virtio.raw"\nsize = "64MiB"\n'
        "write_proof = true",
        'kind = "nvdimm"\nname = "sectors"\nbacking = "memory"\nsize = "32MiB"\nmode = "sector"\nsector_size = 512',
        'kind = "nvdimm"\nname = "giant"\nbacking = "memory"\nsize = "3GiB"\nmode = "devdax"\nalign = "1GiB"\n'
        "node = 1\nguest_node = 1",
        f'kind = "nvdimm"\nname = "unarmed"\nbacking = "file"\npath = "{work}/unarmed.raw"\nsize = "16MiB"\n'
        'device = "nvdimm"',
        memory="384MiB",
        numa=[{"cpus": "0", "memory": "256MiB"}, {"memory": "128MiB"}],
    )
    with machine(spec) as running:
        yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


@pytest.mark.parametrize(("lane", "place"), [("huge", "/mnt/huge"), ("dax", "/mnt/dax")])
def test_a_file_on_the_dax_mount_is_persistent_memory(up: Up, lane: str, place: str) -> None:
    assert up.found(lane, f"{place} is DAX") == "True"
    assert up.found(lane, f"MAP_SYNC of a file on {place}") == "True"
    assert up.found(lane, f"pmem_is_pmem of {place}") == "True"
    assert up.found(lane, f"{place}/nvlane-pmem-check was persisted by") == "pmem_persist"


def test_a_file_on_sectors_is_none(up: Up) -> None:
    assert up.found("huge", "/mnt/log is DAX") == "False"
    assert up.found("huge", "MAP_SYNC of a file on /mnt/log") == "False"
    assert up.found("huge", "pmem_is_pmem of /mnt/log") == "False"


def test_four_namespaces_in_one_nvdimm(up: Up) -> None:
    namespaces = {one["name_in_label"]: one for one in inventory(up)["namespaces"] if one["name_in_label"]}
    modes = {name: one["mode"] for name, one in namespaces.items()}
    assert modes == {"files": "fsdax", "log": "sector", "heap": "devdax", "plain": "raw"}
    sizes = {name: one["size_bytes"] // MIB for name, one in namespaces.items()}
    assert sizes == {"files": 64, "log": 32, "heap": 32, "plain": 16}
    assert (namespaces["files"]["align"], namespaces["heap"]["align"]) == (4096, 4096)
    assert [namespaces[name]["dax"] for name in ("files", "log", "heap", "plain")] == [True, False, True, False]


def test_a_device_on_pages_of_a_gibibyte(up: Up) -> None:
    assert up.found("giant", "alignment") == str(GIB)
    assert int(up.found("giant", "addressable bytes")) == 2 * GIB
    assert up.found("giant", "was persisted by") == "pmem_persist"


def test_nodes_in_the_guest_and_on_the_host(up: Up) -> None:
    nodes = sorted((one["size_bytes"] // MIB, one["numa_node"]) for one in inventory(up)["regions"])
    assert [node for size, node in nodes if size in (144, 3072)] == [1, 1]
    assert {node for size, node in nodes if size in (32, 64)} == {0}
    with up.monitor() as monitor:
        bound = monitor.execute("qom-get", {"path": "/objects/giant-mem", "property": "host-nodes"})
    assert bound == [1]


def test_sectors_of_512_bytes(up: Up) -> None:
    assert up.found("sectors", "sector bytes") == "512"
    assert len(up.found("sectors", "reads back what was written")) == 64


def test_an_nvdimm_in_the_page_cache_is_only_read(up: Up) -> None:
    assert up.found("unarmed", "read-only") == "True"
    assert "so the NVDIMM is unarmed" in up.said.err


def test_a_raw_namespace_takes_no_dax_mount(up: Up) -> None:
    """What many a tutorial shows, and no kernel of today does."""
    plain = next(one for one in inventory(up)["namespaces"] if one["name_in_label"] == "plain")
    with up.guest() as guest, pytest.raises(WireError, match=r"-o dax .*Operation not supported|Invalid argument"):
        device = f"/dev/{plain['blockdev']}"
        guest.call("dax_mount", deadline=60, device=device, fstype="ext4", mountpoint="/mnt/raw")


@pytest.mark.parametrize("lane", ["virtio", "memory"])
def test_persistent_memory_stays_while_the_machine_runs(up: Up, lane: str) -> None:
    refused = nvlane("detach", up.name, lane)
    assert refused.status == 1
    assert "persistent memory stays in a machine while that runs" in refused.err
    assert f"nvlane down {up.name}; nvlane up" in refused.err


def test_a_namespace_that_holds_something_is_left_alone(up: Up) -> None:
    with up.guest() as guest, up.monitor() as monitor:
        look = Look(guest=guest, monitor=monitor)
        regions = {one["size_bytes"] // MIB: one for one in look.inventory()["nvdimm"]["regions"]}
        claim = PmemNamespaceClaim(name="files", size=64 * MIB, mode="sector")
        only_looking = Look(guest=guest, monitor=monitor, write=False)
        with pytest.raises(WireError, match=r"is not made in region\d while only looking"):
            find_or_make(PmemNamespaceClaim(name="more", size=16 * MIB, mode="raw"), regions[144], only_looking)
        with pytest.raises(WireError, match="is in fsdax mode and holds something: making it sector would erase that"):
            find_or_make(claim, regions[144], look)
        with pytest.raises(WireError, match="is read-only, and a namespace that is not there cannot be made in it"):
            find_or_make(PmemNamespaceClaim(mode="fsdax"), regions[16], look)


def test_what_a_guest_flushes_reaches_the_disk_through_virtio_pmem_only(up: Up, work: Path) -> None:
    """The promise itself: pages of the file that the host has not written back, after the guest's own flush."""
    assert written_and_flushed(up, "virtio", work / "virtio.raw") == 0
    assert written_and_flushed(up, "file", work / "nvdimm.raw") == 2 * MIB // 4096


def test_only_looking_writes_nothing(up: Up, work: Path) -> None:
    """Not one page of a file becomes dirty, and every claim that needs no writing is true."""
    os.sync()
    looked = nvlane("verify", "--no-write", "--json", up.name).ok().json
    assert looked["verified"]
    assert dirty_pages(work / "nvdimm.raw", 0, 32 * MIB) == 0
    assert not [one for one in looked["evidence"] if "pattern" in one["claim"] or "reads back" in one["claim"]]
    assert [one["found"] for one in looked["evidence"] if one["claim"] == "/mnt/huge is mounted"] == ["True"]


def written_and_flushed(up: Up, lane: str, file: Path) -> int:
    # What is dirty for half a minute is written back with all of its file: nothing is that old from here on.
    os.sync()
    with up.guest() as guest, up.monitor() as monitor:
        device = Look(guest=guest, monitor=monitor).path(Locator(device_id=lane))
        done = guest.call("write_pattern", deadline=60, device=device, offset=8 * MIB, length=2 * MIB, seed=3)
    assert done["matches"]
    return dirty_pages(file, 8 * MIB, 2 * MIB)


def dirty_pages(file: Path, offset: int, length: int) -> int:
    """cachestat(2), Linux 6.5 and later."""
    span, answer = (ctypes.c_uint64 * 2)(offset, length), (ctypes.c_uint64 * 5)()
    with file.open("rb") as stream:
        status = ctypes.CDLL(None, use_errno=True).syscall(CACHESTAT, stream.fileno(), span, answer, 0)
    assert status == 0, os.strerror(ctypes.get_errno())
    _, dirty, in_writeback, *_ = answer
    return int(dirty + in_writeback)


def inventory(up: Up) -> Any:
    with up.guest() as guest:
        return guest.call("inventory")["nvdimm"]


def test_file_systems(up: Up) -> None:
    mounts = {line.split()[1]: line.split()[2] for line in up.read("/proc/self/mounts").splitlines()}
    assert (mounts["/mnt/huge"], mounts["/mnt/dax"], mounts["/mnt/log"]) == ("ext4", "xfs", "ext4")


def test_usable_sizes_leave_out_the_label_and_fit_the_kernel(up: Up) -> None:
    with up.monitor() as monitor:
        devices = {one["data"]["id"]: one for one in monitor.execute("query-memory-devices")}
        labels = {
            name: monitor.execute("qom-get", {"path": f"/machine/peripheral/{name}", "property": "label-size"})
            for name in ("huge", "memory")
        }
    sizes = {name: one["data"]["size"] // MIB for name, one in devices.items() if name != "dax"}
    assert sizes == {
        "huge": 144, "memory": 64, "file": 32, "virtio": 64, "sectors": 32, "giant": 3072, "unarmed": 16,
    }  # fmt: skip
    assert labels == {"huge": 2 * MIB, "memory": 2 * MIB}
    assert devices["dax"]["data"]["size"] % (16 * MIB) == 0
    assert {one["type"] for one in devices.values()} == {"nvdimm", "virtio-pmem"}


def test_pmem_is_on_only_where_it_is_true(up: Up) -> None:
    with up.monitor() as monitor:
        backends = {
            name: monitor.execute("qom-get", {"path": f"/objects/{name}-mem", "property": "pmem"})
            for name in ("dax", "file", "virtio")
        }
    assert backends == {"dax": True, "file": False, "virtio": False}


@pytest.mark.parametrize("lane", ["file", "virtio"])
def test_the_guest_wrote_where_the_host_can_read_it(up: Up, lane: str) -> None:
    """`down` compares: see at_work.machine."""
    assert len(up.found(lane, "reads back what the guest wrote")) == 64


def test_what_a_backing_cannot_promise_is_said(up: Up) -> None:
    assert "virtio-pmem, which can" in up.said.err
    assert "is lost if the host loses power" in up.said.err
    assert "lives only as long as the machine runs" in up.said.err
    assert "60MiB is rounded up to 64MiB" in up.said.err


def test_hugepages_of_the_nvdimm_are_reserved(up: Up) -> None:
    assert any("reserve 73 hugepages of 2MiB" in step for step in up.status()["to_undo"])


def test_an_nvdimm_is_attached_and_stays(up: Up, work: Path) -> None:
    lane = work / "more.toml"
    lane.write_text('[[lane]]\nkind = "nvdimm"\nname = "more"\nbacking = "memory"\nsize = "32MiB"\nmode = "sector"\n')
    said = nvlane("attach", up.name, lane).ok()
    assert "it stays until nvlane down" in said.err
    evidence = {one["claim"]: one["found"] for one in up.status()["evidence"] if one["lane"] == "more"}
    assert "sector" in [found for claim, found in evidence.items() if claim.endswith(" mode")]
    assert any("reads back what was written" in claim for claim in evidence)


def test_a_dax_device_is_given_to_one_machine(up: Up, dax_device: str, tmp_path: Path) -> None:
    second = write_spec(tmp_path, "second", f'kind = "nvdimm"\nbacking = "dax"\npath = "{dax_device}"')
    refused = nvlane("plan", second)
    assert refused.status == 3
    said = refused.out + refused.err
    assert "has an open file handle" in said
    assert f"process {up.status()['pid']} (qemu-system-x86) has {dax_device} open" in said


def test_nothing_of_the_files_is_lost(up: Up) -> None:
    assert all(Path(step.split()[4]).exists() for step in up.status()["to_undo"] if step.startswith("create the raw"))
