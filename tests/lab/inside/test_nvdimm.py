"""The nvdimm lane in the lab: every backing in one guest, DAX file systems on two of them."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, write_spec

from nvlane.apply import process

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def dax_device() -> Iterator[str]:
    """The lab's own persistent memory as a DAX device, and raw again afterwards."""
    there = "device_dax" in Path("/proc/modules").read_text().split()
    # There is no udev here that would load it.
    process.run(["modprobe", "device_dax"])
    make = ["ndctl", "create-namespace", "--force", "--reconfig=namespace0.0"]
    made = process.run([*make, "--mode=devdax", "--map=mem"]).stdout
    device = f"/dev/{json.loads(made)['daxregion']['devices'][0]['chardev']}"
    blank(device)
    yield device
    process.run([*make, "--mode=raw"])
    if not there:
        process.run(["modprobe", "-r", "device_dax"])


def blank(dax_device: str) -> None:
    """Zeros where earlier tests had a file system: nvlane makes nothing anew that holds something."""
    descriptor = os.open(dax_device, os.O_RDWR)
    try:
        with mmap.mmap(descriptor, 64 * MIB) as front:
            for at in range(0, 64 * MIB, MIB):
                front[at : at + MIB] = bytes(MIB)
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory, dax_device: str) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("nvdimm")
    spec = write_spec(
        work,
        "nvdimm",
        'kind = "nvdimm"\nname = "huge"\nbacking = "hugepages"\nsize = "64MiB"\nlabel = "2MiB"\n'
        'mode = "fsdax"\nfilesystem = "ext4"\nmountpoint = "/mnt/huge"',
        f'kind = "nvdimm"\nname = "dax"\nbacking = "dax"\npath = "{dax_device}"\nmode = "fsdax"\n'
        'filesystem = "xfs"\nmountpoint = "/mnt/dax"',
        'kind = "nvdimm"\nname = "memory"\nbacking = "memory"\nsize = "60MiB"\nlabel = "128KiB"',
        f'kind = "nvdimm"\nname = "file"\nbacking = "file"\npath = "{work}/nvdimm.raw"\nsize = "32MiB"\n'
        'device = "nvdimm"\nwrite_proof = true',
        f'kind = "nvdimm"\nname = "virtio"\nbacking = "file"\npath = "{work}/virtio.raw"\nsize = "64MiB"\n'
        "write_proof = true",
        memory="384MiB",
    )
    with machine(spec) as running:
        yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


@pytest.mark.parametrize("lane", ["huge", "dax"])
def test_a_file_on_the_dax_mount_is_persistent_memory(up: Up, lane: str) -> None:
    assert up.found(lane, "is DAX") == "True"
    assert up.found(lane, "pmem_is_pmem") == "True"
    assert up.found(lane, "persisted by") == "pmem_persist"


def test_file_systems(up: Up) -> None:
    mounts = {line.split()[1]: line.split()[2] for line in up.read("/proc/self/mounts").splitlines()}
    assert (mounts["/mnt/huge"], mounts["/mnt/dax"]) == ("ext4", "xfs")


def test_usable_sizes_leave_out_the_label_and_fit_the_kernel(up: Up) -> None:
    with up.monitor() as monitor:
        devices = {one["data"]["id"]: one for one in monitor.execute("query-memory-devices")}
        labels = {
            name: monitor.execute("qom-get", {"path": f"/machine/peripheral/{name}", "property": "label-size"})
            for name in ("huge", "memory")
        }
    sizes = {name: one["data"]["size"] // MIB for name, one in devices.items() if name != "dax"}
    assert sizes == {"huge": 64, "memory": 64, "file": 32, "virtio": 64}
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
    assert any("reserve 33 hugepages of 2MiB" in step for step in up.status()["to_undo"])


def test_nothing_of_the_files_is_lost(up: Up) -> None:
    assert all(Path(step.split()[4]).exists() for step in up.status()["to_undo"] if step.startswith("create the raw"))
