"""Facts of the lab, whose hardware is known: what is read must be what the lab was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from spare import HOST, drives, modules_as_before, on_vfio, sh, spare_drive, wait

from nvlane.facts.dax import read_dax_devices
from nvlane.facts.drives import read_drives
from nvlane.facts.host import read_facts
from nvlane.facts.hugepages import read_pools
from nvlane.facts.locate import Located, find_drive
from nvlane.facts.paths import read_path
from nvlane.facts.pci import read_function
from nvlane.facts.shape import Facts, HugepagePool
from nvlane.facts.usage import take_survey
from nvlane.lab.drives import pattern
from nvlane.model.codec import decode, encode

pytestmark = pytest.mark.lab

MIB = 1 << 20


@pytest.fixture(scope="module")
def facts() -> Facts:
    sibling = drives("LABSIBA")["LABSIBA"].address
    return read_facts(HOST, state_dir="/none", runtime_dir="/none", fingerprint_of=(f"{sibling}:1",))


def located(facts: Facts, text: str) -> Located:
    found = find_drive(facts, text)
    assert isinstance(found, Located), found
    return found


def test_iommu_and_vfio(facts: Facts) -> None:
    assert facts.iommu == "intel"
    vfio = facts.vfio
    assert vfio is not None
    assert (vfio.module_available, vfio.type1_available, vfio.container, vfio.uio_available) == (True,) * 4
    assert not vfio.cdev  # Debian builds its kernels without it
    assert not vfio.no_iommu_mode


def test_groups(facts: Facts) -> None:
    first, second = (located(facts, f"serial:{serial}").function for serial in ("LABSIBA", "LABSIBB"))
    assert first.iommu_group is not None and first.iommu_group == second.iommu_group
    alone = located(facts, "serial:LABDRIVE1").function
    assert alone.iommu_group is not None
    assert [f.address for f in facts.group(alone.iommu_group) if f.is_nvme] == [alone.address]


def test_functions(facts: Facts) -> None:
    assert located(facts, "serial:LABDRIVE2").function.numa_node == 1
    virtual = located(facts, "serial:LABVF").function
    assert (virtual.driver, virtual.sriov_total, virtual.sriov_enabled) == ("nvme", 2, 0)
    assert "flr" in virtual.reset_methods


def test_nodes(facts: Facts) -> None:
    assert [node.node for node in facts.nodes] == [0, 1]
    assert frozenset().union(*(node.cpus for node in facts.nodes)) == facts.cpus
    for node in facts.nodes:
        assert 0 < node.free_contiguous <= node.memory_free <= node.memory_total


def test_binaries(facts: Facts) -> None:
    qemu, daemon = facts.qemu, facts.storage_daemon
    assert qemu is not None and not qemu.error
    assert {"kvm", "tcg"} <= set(qemu.accelerators)
    assert "host" in qemu.devices["vfio-pci"]
    assert "sriov_max_vfs" in qemu.devices["nvme"]
    assert {"nvme", "host_device", "file"} <= set(qemu.block_drivers)
    assert {"memory-backend-memfd", "iothread"} <= set(qemu.objects)
    assert qemu.sandbox and qemu.pmem
    assert daemon is not None and not daemon.error
    assert "vhost-user-blk" in daemon.exports


def test_nothing_is_hidden_from_root(facts: Facts) -> None:
    assert facts.unknown == ()
    assert facts.limits.can_raise


def test_facts_are_the_same_after_a_file(facts: Facts) -> None:
    assert decode(Facts, json.loads(json.dumps(encode(facts)))) == facts


def test_fingerprint_is_of_the_known_content(facts: Facts) -> None:
    (found,) = facts.fingerprints
    size = drives("LABSIBA")["LABSIBA"].namespaces[0].size
    content = {0: pattern("LABSIBA", 1), size - MIB: pattern("LABSIBA", 1)}
    digest = hashlib.sha256()
    for offset, length in found.ranges:
        start = offset // MIB * MIB
        whole = content.get(start, bytes(MIB))
        digest.update(whole[offset - start : offset - start + length])
    assert found.ranges[0] == (0, MIB) and found.ranges[-1][0] + found.ranges[-1][1] == size
    assert found.sha256 == digest.hexdigest()


def test_a_drive_on_vfio_is_remembered_when_somebody_remembers() -> None:
    with spare_drive() as spare, on_vfio(spare):
        address = spare.drive.address
        function = read_function(HOST, address)
        assert function is not None
        assert (function.driver, function.driver_override) == ("vfio-pci", "vfio-pci")
        (stranger,) = read_drives(HOST, (function,), take_survey(HOST), {})
        assert (stranger.serial, stranger.namespaces) == ("", ())
        (known,) = read_drives(HOST, (function,), take_survey(HOST), {address: spare.drive})
        assert (known.serial, known.remembered, known.namespaces) == ("LABSPARE", True, spare.drive.namespaces)


def test_hugepages_are_counted_by_node() -> None:
    count = Path("/sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages")
    before = count.read_text()
    count.write_text("8")
    try:
        pools = {(pool.node, pool.page_size): pool for pool in read_pools(HOST)}
        assert pools[1, 2 * MIB] == HugepagePool(node=1, page_size=2 * MIB, total=8, free=8)
        assert pools[0, 2 * MIB].total == 0
    finally:
        count.write_text(before)


@contextmanager
def namespace(mode: str) -> Iterator[dict[str, str]]:
    """The lab's NVDIMM in another mode, and back."""
    before = json.loads(sh("ndctl", "list", "--namespaces"))[0]
    made = json.loads(sh("ndctl", "create-namespace", "--force", "--reconfig", before["dev"], "--mode", mode))
    try:
        yield made
    finally:
        sh("ndctl", "create-namespace", "--force", "--reconfig", made["dev"], "--mode", before["mode"])


def test_dax_device() -> None:
    with modules_as_before():
        sh("modprobe", "device_dax")
        with namespace("devdax"):
            wait("the DAX device is there", lambda: bool(read_dax_devices(HOST)))
            (device,) = read_dax_devices(HOST)
            assert device.size > 900 * MIB
            assert device.alignment in (4096, 2 * MIB)
            found = read_path(HOST, device.path, take_survey(HOST))
            assert (found.kind, found.size, found.dax) == ("char", device.size, True)


def test_dax_mount(tmp_path: Path) -> None:
    with namespace("fsdax") as made:
        node = f"/dev/{made['blockdev']}"
        sh("mke2fs", "-q", "-F", "-t", "ext4", node)
        for options, dax in (("dax=always", True), ("dax=never", False)):
            sh("mount", "-o", options, node, str(tmp_path))
            try:
                found = read_path(HOST, f"{tmp_path}/new.img", take_survey(HOST))
                assert (found.kind, found.filesystem, found.dax) == ("absent", "ext4", dax)
            finally:
                sh("umount", str(tmp_path))
