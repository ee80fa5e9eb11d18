"""The other readers, on trees as real hosts have them."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import pytest
from facts_tree import ADDRESS, CTRL, PCI, host
from fakehost import Content, Fails, FakeHost, Link, Node

from nvlane.apply.linux_reader import LinuxReader
from nvlane.facts.drives import read_drives
from nvlane.facts.fingerprint import ranges_of, read_fingerprints
from nvlane.facts.host import read_binary, read_facts, resolve_program
from nvlane.facts.hugepages import hugetlbfs_mounts, read_default_size, read_pools, read_reserved
from nvlane.facts.iommu import read_iommu, read_vfio
from nvlane.facts.limits import read_limits
from nvlane.facts.modules import read_modules
from nvlane.facts.mounts import mount_of, parse_mountinfo
from nvlane.facts.numa import read_nodes
from nvlane.facts.paths import read_path
from nvlane.facts.pci import read_functions
from nvlane.facts.processor import is_emulated
from nvlane.facts.qmp_script import Schema
from nvlane.facts.shape import Content as OnDevice
from nvlane.facts.shape import Drive, Facts, Limits, Namespace, Qemu
from nvlane.facts.usage import take_survey
from nvlane.model.codec import decode, encode
from nvlane.model.host import HostReader, Output
from nvlane.model.pci import PciAddress
from nvlane.model.size import GIB, KIB, MIB

DRIVE = PciAddress.parse(ADDRESS)
Signature = tuple[str, str, str | None, str]
SIGNATURES: tuple[Signature, ...] = (
    ("nvme0n1", "gpt", None, "partition-table"),
    ("nvme0n1", "gpt", None, "partition-table"),
    ("nvme0n1", "PMBR", None, "partition-table"),
    ("nvme0n1p1", "ext4", "my data", "filesystem"),
)


def wipefs(*signatures: Signature) -> dict[str, object]:
    """What wipefs of util-linux 2.41 prints; nothing at all when there is no signature."""
    keys = ("device", "type", "label", "usage")
    text = json.dumps({"signatures": [dict(zip(keys, found, strict=True)) for found in signatures]})
    return {"wipefs": lambda _argv: Output(status=0, stdout=text if signatures else "", stderr="")}


def test_pci_function() -> None:
    functions = read_functions(host({f"{PCI}/sriov_totalvfs": "4\n", f"{PCI}/sriov_numvfs": "0\n"}))
    assert len(functions) == 1
    function = functions[0]
    assert (function.vendor, function.device, function.is_nvme) == (0x144D, 0xA808, True)
    assert (function.driver, function.driver_override, function.iommu_group) == ("nvme", "", 12)
    assert (function.numa_node, function.sriov_total, function.reset_methods) == (-1, 4, ("flr", "bus"))


def test_virtual_function_and_domain_of_vmd() -> None:
    vf = "/sys/devices/pci0000:00/0000:04:00.1"
    more: dict[str, Content] = {
        "/sys/bus/pci/devices/0000:04:00.1": Link(vf),
        f"{vf}/class": "0x010802\n",
        f"{vf}/physfn": Link("../0000:04:00.0"),
        f"{vf}/driver_override": "vfio-pci\n",
        "/sys/bus/pci/devices/10000:e1:00.0": Link("/sys/devices/vmd"),
        "/sys/devices/vmd/class": "0x010802\n",
    }
    functions = {str(f.address): f for f in read_functions(host(more))}
    assert functions["0000:04:00.1"].physical_function == DRIVE
    assert functions["0000:04:00.1"].driver_override == "vfio-pci"


def test_drive_with_content() -> None:
    there = host(commands=wipefs(*SIGNATURES))
    (drive,) = read_drives(there, read_functions(there), take_survey(there), {})
    assert (drive.serial, drive.model, drive.controller) == (
        "S4EVNX0M512345", "Samsung SSD 970 EVO Plus 1TB", "nvme0",
    )  # fmt: skip
    assert drive.namespaces == (
        Namespace(name="nvme0n1", nsid=1, size=GIB, block_size=512, wwid="eui.0025385b11b2a1ff"),
    )
    assert drive.contents == (
        OnDevice(device="nvme0n1", what="gpt partition table"),
        OnDevice(device="nvme0n1p1", what="ext4, label my data"),
    )
    assert [argv[0] for argv in there.asked] == ["wipefs"]


def test_content_is_not_probed_on_a_drive_in_use() -> None:
    there = host({"/proc/swaps": "h\n/dev/nvme0n1p2 partition 1 0 -2\n"}, commands=wipefs(*SIGNATURES))
    (drive,) = read_drives(there, read_functions(there), take_survey(there), {})
    assert drive.contents == ()
    assert there.asked == []


def test_data_without_signature_and_with_several() -> None:
    nodes: dict[str, Content] = {
        "/dev/nvme0n1": Node("block", (259, 0), b"\0" * 512 + b"data"),
        "/dev/nvme0n1p1": Node("block", (259, 1), b"\0" * 4096),
    }
    two = (("nvme0n1p2", "ext4", None, "filesystem"), ("nvme0n1p2", "zfs_member", "tank", "filesystem"))
    there = host(nodes, commands=wipefs(*two))
    (drive,) = read_drives(there, read_functions(there), take_survey(there), {})
    assert drive.contents == (
        OnDevice(device="nvme0n1", what="data without a known signature"),
        OnDevice(device="nvme0n1p2", what="ext4 and zfs_member, label tank"),
    )


def test_a_drive_that_nvlane_took_is_remembered() -> None:
    files = {p: c for p, c in host().files.items() if not p.startswith(CTRL) and "nvme0" not in p}
    there = FakeHost(files)
    namespaces = (Namespace(name="nvme0n1", nsid=1, size=GIB, block_size=512),)
    known = Drive(address=DRIVE, serial="S4", controller="nvme0", namespaces=namespaces)
    functions = read_functions(there)
    (drive,) = read_drives(there, functions, take_survey(there), {DRIVE: known})
    assert (drive.serial, drive.remembered, drive.controller) == ("S4", True, "")
    (stranger,) = read_drives(there, functions, take_survey(there), {})
    assert stranger == Drive(address=DRIVE)


NUMA: dict[str, Content] = {
    "/sys/devices/system/node/node0/cpulist": "0-3\n",
    "/sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:  8388608 kB\nNode 0 MemFree:  1024 kB\n",
    "/sys/devices/system/node/node1/cpulist": "\n",
    "/sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:  4194304 kB\nNode 1 MemFree:  2048 kB\n",
    "/proc/self/auxv": struct.pack("=QQQQ", 6, 4096, 0, 0),
    "/proc/buddyinfo": "Node 0, zone      DMA      0      0 0 0 0 0 0 0 1 1 3 \n"
    "Node 0, zone   Normal 9 9 9 9 9 9 9 9 9 2 0 \n",
    "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
    "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages": "500\n",
    "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/surplus_hugepages": "2\n",
    "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages": "7\n",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
    "/proc/meminfo": "MemTotal: 12582912 kB\nHugepagesize:       2048 kB\n",
}


def test_numa_nodes() -> None:
    first, second = read_nodes(FakeHost(NUMA))
    assert (first.cpus, first.memory_total, first.memory_free) == (frozenset(range(4)), 8 * GIB, MIB)
    assert first.free_contiguous == (2 * MIB) * 1 + (4 * MIB) * 3 + (2 * MIB) * 2
    assert (second.node, second.cpus, second.free_contiguous) == (1, frozenset(), 0)


def test_a_kernel_without_numa_is_one_node() -> None:
    bare: dict[str, Content] = {
        "/proc/meminfo": "MemTotal: 4096 kB\nMemFree: 1024 kB\n",
        "/sys/devices/system/cpu/online": "0-1\n",
        "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "3\n",
    }
    (node,) = read_nodes(FakeHost(bare))
    assert (node.node, node.cpus, node.memory_total) == (0, frozenset({0, 1}), 4096 * KIB)
    (pool,) = read_pools(FakeHost(bare))
    assert (pool.node, pool.page_size, pool.total) == (0, 2 * MIB, 3)


@pytest.mark.parametrize(
    ("text", "emulated"),
    [
        ("processor\t: 0\nmodel name\t: QEMU TCG CPU version 2.5+\nflags\t\t: fpu svm\n", True),
        ("processor\t: 0\nmodel name\t: AMD EPYC 9354 32-Core Processor\nflags\t\t: fpu svm\n", False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\nCPU implementer\t: 0x41\n", False),
    ],
)
def test_a_host_that_qemu_emulates(text: str, emulated: bool) -> None:
    assert is_emulated(FakeHost({"/proc/cpuinfo": text})) is emulated


def test_hugepages() -> None:
    there = FakeHost(NUMA)
    small, large = read_pools(there)
    assert (small.node, small.page_size, small.total, small.free, small.surplus) == (0, 2 * MIB, 512, 500, 2)
    assert (large.page_size, large.total) == (GIB, 0)
    assert read_reserved(there) == {2 * MIB: 7}
    assert read_default_size(there) == 2 * MIB


def test_hugetlbfs_mounts_and_the_mount_of_a_path() -> None:
    mounts = parse_mountinfo(
        "20 1 254:0 / / rw - ext4 /dev/vda rw\n"
        "21 20 0:30 / /dev/hugepages rw,relatime - hugetlbfs none rw,pagesize=2M\n"
        "22 20 0:31 / /srv rw - tmpfs none rw\n23 22 0:32 / /srv rw - ext4 /dev/vdb rw\n",
        "self",
        keep_all=True,
    )
    (huge,) = hugetlbfs_mounts(mounts)
    assert (huge.target, huge.options) == ("/dev/hugepages", "rw,relatime,rw,pagesize=2M")
    inner, outer = mount_of("/srv/images/a", mounts), mount_of("/srvx", mounts)
    assert inner is not None and inner.source == "/dev/vdb"  # the later of two on one place hides the first
    assert outer is not None and outer.target == "/"


@pytest.mark.parametrize(
    ("units", "groups", "kind"),
    [(["dmar0"], True, "intel"), (["ivhd0"], True, "amd"), (["smmu3.0x1"], True, "other"), ([], True, ""),
     (["dmar0"], False, "")],
)  # fmt: skip
def test_iommu(units: list[str], groups: bool, kind: str) -> None:
    files: dict[str, Content] = {f"/sys/class/iommu/{unit}": None for unit in units}
    if groups:
        files["/sys/kernel/iommu_groups/0/devices"] = None
    assert read_iommu(FakeHost(files)) == kind


DEP = (
    "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/drivers/vfio/pci/vfio-pci-core.ko.xz\n"
    "kernel/drivers/vfio/vfio_iommu_type1.ko.xz: kernel/drivers/vfio/vfio.ko.xz\n"
    "kernel/drivers/vfio/vfio.ko.xz:\n"
)


def test_modules_and_vfio() -> None:
    there = FakeHost(
        {
            "/lib/modules/6.1/modules.dep": DEP,
            "/lib/modules/6.1/modules.builtin": "kernel/drivers/nvme/host/nvme.ko\n",
            "/proc/modules": "kvm_amd 200704 0 - Live 0x0\nkvm 1200 1 kvm_amd, Live 0x0\n",
            "/boot/config-6.1": "# CONFIG_VFIO_DEVICE_CDEV is not set\n",
            "/dev/iommu": Node("char", (10, 1)),
            "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode": "N\n",
        }
    )
    present, loadable = read_modules(there, "6.1")
    assert set(present) == {"kvm", "kvm_amd", "nvme", "vfio"}  # vfio: /sys/module has it
    assert set(loadable) == {"vfio_pci", "vfio_iommu_type1"}  # vfio_pci_core is only named as a dependency here
    vfio = read_vfio(there, "6.1", present, loadable)
    assert (vfio.module_available, vfio.type1_available, vfio.container) == (True, True, True)
    assert (vfio.cdev, vfio.no_iommu_mode, vfio.uio_available) == (False, False, False)


def test_cdev_by_the_configuration_in_the_kernel() -> None:
    files: dict[str, Content] = {
        "/proc/config.gz": gzip.compress(b"CONFIG_VFIO_DEVICE_CDEV=y\n"),
        "/dev/iommu": Node("char", (10, 1)),
    }
    assert read_vfio(FakeHost(files), "7.0", (), ()).cdev
    del files["/dev/iommu"]
    assert not read_vfio(FakeHost(files), "7.0", (), ()).cdev


@pytest.mark.parametrize(
    ("line", "caps", "limits"),
    [
        ("8388608              16777216", "000001ffffffffff", Limits(memlock=16777216, can_raise=True)),
        ("unlimited            unlimited", "0000000000000000", Limits(memlock=None, can_raise=False)),
    ],
)
def test_limits(line: str, caps: str, limits: Limits) -> None:
    files: dict[str, Content] = {
        "/proc/self/limits": f"Limit  Soft  Hard Units\nMax locked memory         {line}     bytes\n",
        "/proc/self/status": f"Name: x\nCapEff:\t{caps}\n",
    }
    assert read_limits(FakeHost(files)) == limits


@pytest.mark.parametrize("size", [0, 4096, 5000, MIB, MIB + 4096, 2 * MIB, 3 * MIB + 512, GIB, 3 * GIB + 12345])
def test_ranges_stay_inside_and_apart(size: int) -> None:
    at = 0
    for offset, length in ranges_of(size):
        assert offset >= at and length > 0 and offset % 4096 == 0 and length % 4096 == 0
        at = offset + length
    assert at == size // 4096 * 4096


def test_fingerprints_tell_contents_apart(tmp_path: Path) -> None:
    real = LinuxReader()
    first, second = tmp_path / "a", tmp_path / "b"
    for path in (first, second):
        with path.open("wb") as file:
            file.truncate(8 * MIB)
    with second.open("r+b") as file:
        file.seek(8 * MIB - 1)
        file.write(b"x")
    wanted = (str(first), str(second), str(tmp_path / "none"))
    prints, unknown = read_fingerprints(real, wanted, ())
    assert [p.of for p in prints] == [str(first), str(second)]
    assert prints[0].sha256 != prints[1].sha256
    (tmp_path / "none").write_text("less than a block")
    assert read_fingerprints(real, wanted, ())[0] == prints
    assert unknown == ()


def test_a_fingerprint_that_cannot_be_read_is_told() -> None:
    there = host({"/dev/nvme0n1": Fails(13)})
    namespaces = (Namespace(name="nvme0n1", nsid=2, size=GIB, block_size=512),)
    drives = (Drive(address=DRIVE, controller="nvme0", namespaces=namespaces),)
    prints, unknown = read_fingerprints(there, (f"{ADDRESS}:2", f"{ADDRESS}:9"), drives)
    assert prints == ()
    assert len(unknown) == 1 and f"{ADDRESS}:2" in unknown[0]


SCHEMA = [
    {"name": "blockdev-add", "meta-type": "command", "arg-type": "1"},
    {
        "name": "1", "meta-type": "object", "tag": "driver",
        "members": [{"name": "node-name", "type": "str"}, {"name": "driver", "type": "2"}],
    },
    {"name": "2", "meta-type": "enum", "values": ["file", "nvme"]},
    {"name": "3", "meta-type": "enum", "values": ["threads", "native", "io_uring"]},
]  # fmt: skip


def test_schema() -> None:
    schema = Schema(SCHEMA)
    assert schema.tag_values("blockdev-add") == ("file", "nvme")
    assert schema.tag_values("block-export-add") == ()
    assert schema.enum_with("native", "threads") == ("threads", "native", "io_uring")


class _Cache(dict[str, str]):
    def put(self, key: str, text: str) -> None:
        self[key] = text


def test_a_binary_is_asked_once_and_again_when_it_changes(tmp_path: Path) -> None:
    binary = tmp_path / "qemu"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    asked: list[str] = []

    def ask(_host: HostReader, path: str) -> Qemu:
        asked.append(path)
        return Qemu(path=path, version="1.2.3", devices={"nvme": ("serial",)})

    cache, real = _Cache(), LinuxReader()
    first = read_binary(real, str(binary), Qemu, ask, cache)
    assert read_binary(real, str(binary), Qemu, ask, cache) == first
    assert len(asked) == 1
    binary.write_text("#!/bin/sh\n# other\n")
    read_binary(real, str(binary), Qemu, ask, cache)
    assert len(asked) == 2
    for key in cache:
        cache[key] = "{torn"
    read_binary(real, str(binary), Qemu, ask, cache)
    assert len(asked) == 3


def test_a_failure_is_not_cached(tmp_path: Path) -> None:
    binary = tmp_path / "qemu"
    binary.write_text("")
    cache = _Cache()
    read_binary(LinuxReader(), str(binary), Qemu, lambda _h, p: Qemu(path=p, version="", error="broken"), cache)
    assert cache == {}


def test_programs_are_found_by_path_and_in_sbin() -> None:
    there = FakeHost({"/opt/bin/qemu": "x", "/usr/sbin/blkid": "x"}, variables={"PATH": "/opt/bin:relative"})
    assert resolve_program(there, "qemu") == "/opt/bin/qemu"
    assert resolve_program(there, "blkid") == "/usr/sbin/blkid"
    assert resolve_program(there, "none") == ""
    missing = read_binary(there, "none", Qemu, lambda _h, p: Qemu(path=p, version=""), None)
    assert "no such program: none" in missing.error


def test_a_path_to_a_partition_and_to_nothing() -> None:
    there = host({"/dev/disk/by-id/x": Link("../../nvme0n1p1"), "/proc/swaps": "h\n/dev/nvme0n1p1 partition 1 0 -2\n"})
    survey = take_survey(there)
    found = read_path(there, "/dev/disk/by-id/x", survey)
    assert (found.kind, found.size, found.format) == ("block", 512 * MIB, "raw")
    assert [use.device for use in found.uses] == ["nvme0n1p1"]
    absent = read_path(there, "/nowhere/x.img", survey)
    assert (absent.kind, absent.parent_exists) == ("absent", False)


def test_a_file_on_a_dax_mount(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(b"\0" * 4096)
    line = f"31 24 259:1 / {tmp_path} rw - ext4 /dev/pmem0 rw,dax=always\n"

    class Dax(LinuxReader):
        def read_text(self, path: str) -> str:
            return line if path == "/proc/self/mountinfo" else super().read_text(path)

    there = Dax()
    found = read_path(there, str(image), take_survey(there))
    assert (found.kind, found.dax, found.filesystem, found.size) == ("file", True, "ext4", 4096)


def test_facts_of_this_machine_serialise(tmp_path: Path) -> None:
    """Every reader on the real host that runs the tests: nothing is assumed of it but that it is Linux."""
    facts = read_facts(
        LinuxReader(), state_dir=str(tmp_path), runtime_dir=str(tmp_path), spec_paths=("/", str(tmp_path / "x"))
    )
    assert facts.kernel and facts.boot_id and facts.cpus and facts.memory_total > 0
    assert facts.nodes and sum(node.memory_total for node in facts.nodes) > 0
    assert facts.path("/").kind == "directory"
    assert decode(Facts, json.loads(json.dumps(encode(facts)))) == facts
