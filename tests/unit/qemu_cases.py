"""Machines with every kind of device, as values: rendered for the golden files, and started for real."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from nvlane.model.device import (
    BlockNode,
    BootDisk,
    Device,
    DirectBoot,
    Frontend,
    MachineDevice,
    MemoryNeeds,
    Object,
    SocketChardev,
)
from nvlane.model.pci import PciAddress
from nvlane.model.size import MIB

DISK_SIZE = 64 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One machine. `devices` is told the directory of its images; `images` are those that have to be there.

    `real` is False for what needs hardware; `needs` are (device type, property) that a QEMU may lack.
    """

    devices: Callable[[str], tuple[Device, ...]] = lambda _: ()
    machine: Callable[[str], Mapping[str, object]] = lambda _: {}
    images: tuple[str, ...] = ()
    needs: tuple[tuple[str, str], ...] = ()
    real: bool = True
    present: tuple[str, ...] = ()
    target: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a case is built: the runtime directory of the machine, and that of its images."""

    runtime: str
    images: str = field(default="")


def machine(place: Place, case: Case) -> MachineDevice:
    base = MachineDevice(
        name="sles,15",
        uuid="5a7e1c3e-0000-4000-8000-000000000001",
        machine_type="q35",
        accelerator="tcg",
        cpu_model="max",
        memory=128 * MIB,
        cpus=2,
        runtime=place.runtime,
        needs=MemoryNeeds(),
        root_ports=2,
    )
    changes = case.machine(place.images)
    return MachineDevice(**{**{name: getattr(base, name) for name in MachineDevice.__slots__}, **changes})  # type: ignore[arg-type]


def file_nodes(images: str, *, count: int = 1) -> tuple[BlockNode, ...]:
    """`count` raw disks: a file node and a format node each."""
    nodes: list[BlockNode] = []
    for number in range(count):
        protocol = {"filename": f"{images}/disk{number}.raw"}
        nodes.append(BlockNode(driver="file", node_name=f"file{number}", options=protocol))
        nodes.append(BlockNode(driver="raw", node_name=f"disk{number}", options={"file": f"file{number}"}))
    return tuple(nodes)


def controller(**properties: object) -> Frontend:
    return Frontend(driver="nvme", id="ctrl", properties={"serial": "12345", **properties}, slot=True)


def namespace(number: int, **properties: object) -> Frontend:
    base: dict[str, object] = {"drive": f"disk{number}", "bus": "ctrl", "nsid": number + 1}
    return Frontend(driver="nvme-ns", id=f"ns{number + 1}", properties=base | properties)


def subsystem(**properties: object) -> Frontend:
    return Frontend(driver="nvme-subsys", id="subsys", properties={"nqn": "fast", **properties})


def behind(*frontends: Device) -> Callable[[str], tuple[Device, ...]]:
    """Front ends on one raw disk, whose node is 'disk0'."""
    return lambda images: (*file_nodes(images), *frontends)


def memory(kind: str, size: int, images: str) -> Object:
    properties = {"size": size, "mem-path": f"{images}/pmem.raw", "share": True}
    return Object(qom_type=kind, id="pmem", properties=properties)


ONE, TWO = ("disk0.raw",), ("disk0.raw", "disk1.raw")
IOTHREAD = Object(qom_type="iothread", id="io0")

CASES: dict[str, Case] = {
    "bare": Case(),
    "pc": Case(
        devices=behind(Frontend(driver="virtio-blk-pci", id="blk", properties={"drive": "disk0"}, slot=True)),
        machine=lambda _: {"machine_type": "pc", "needs": MemoryNeeds(shared=True)},
        images=ONE,
        present=("blk",),
    ),
    "nvme-namespaces": Case(
        devices=lambda images: (
            *file_nodes(images, count=2),
            controller(ioeventfd=True, max_ioqpairs=2, msix_qsize=3),
            namespace(0, logical_block_size=512),
            namespace(1, logical_block_size=4096, physical_block_size=4096),
        ),
        images=TWO,
        needs=(("nvme", "ioeventfd"),),
        present=("ctrl", "ns1", "ns2"),
    ),
    "nvme-subsystem": Case(
        devices=lambda images: (*file_nodes(images), subsystem(), controller(subsys="subsys"), namespace(0)),
        images=ONE,
        present=("subsys", "ctrl", "ns1"),
    ),
    "nvme-zns": Case(
        devices=lambda images: (
            *file_nodes(images),
            controller(),
            namespace(
                0,
                zoned=True,
                **{"zoned.zone_size": 4 * MIB, "zoned.zone_capacity": 3 * MIB, "zoned.max_open": 4},
            ),
        ),
        images=ONE,
        present=("ns1",),
    ),
    "nvme-fdp": Case(
        devices=lambda images: (
            *file_nodes(images),
            subsystem(fdp=True, **{"fdp.nrg": 1, "fdp.nruh": 4, "fdp.runs": 96 * MIB}),
            controller(subsys="subsys"),
            namespace(0, **{"fdp.ruhs": "0;1"}),
        ),
        images=ONE,
        needs=(("nvme-subsys", "fdp"),),
        present=("ns1",),
    ),
    "nvme-protection": Case(
        devices=lambda images: (*file_nodes(images), controller(), namespace(0, ms=8, pi=1)),
        images=ONE,
        present=("ns1",),
    ),
    "nvme-sriov": Case(
        devices=lambda images: (
            *file_nodes(images),
            subsystem(),
            controller(
                subsys="subsys",
                sriov_max_vfs=2,
                sriov_vq_flexible=4,
                sriov_vi_flexible=4,
                max_ioqpairs=8,
                msix_qsize=8,
            ),
            namespace(0),
        ),
        images=ONE,
        needs=(("nvme", "sriov_max_vfs"),),
        present=("ctrl",),
    ),
    "nvme-cmb-pmr": Case(
        devices=lambda images: (
            *file_nodes(images),
            Object(qom_type="memory-backend-ram", id="pmr", properties={"size": 16 * MIB, "share": True}),
            controller(cmb_size_mb=16, pmrdev="pmr"),
            namespace(0),
        ),
        images=ONE,
        present=("ctrl",),
    ),
    "frontend-virtio-blk": Case(
        devices=behind(
            IOTHREAD,
            Frontend(
                driver="virtio-blk-pci",
                id="blk",
                properties={"drive": "disk0", "serial": "12345", "iothread": "io0", "num-queues": 2},
                slot=True,
            ),
        ),
        images=ONE,
        present=("blk",),
    ),
    "frontend-virtio-scsi": Case(
        devices=behind(
            IOTHREAD,
            Frontend(driver="virtio-scsi-pci", id="hba", properties={"iothread": "io0", "num_queues": 2}, slot=True),
            Frontend(
                driver="scsi-hd",
                id="lun",
                properties={"drive": "disk0", "serial": "12345", "bus": "hba.0", "scsi-id": 0, "lun": 0},
            ),
        ),
        images=ONE,
        present=("hba", "lun"),
    ),
    "frontend-nvme": Case(devices=behind(controller(drive="disk0")), images=ONE, present=("ctrl",)),
    "frontend-sata": Case(
        devices=behind(
            Frontend(driver="ich9-ahci", id="ahci"),
            Frontend(driver="ide-hd", id="disk", properties={"drive": "disk0", "bus": "ahci.0", "serial": "12345"}),
        ),
        images=ONE,
        present=("ahci", "disk"),
    ),
    "frontend-usb": Case(
        devices=behind(
            Frontend(driver="qemu-xhci", id="xhci", slot=True),
            Frontend(
                driver="usb-storage",
                id="stick",
                properties={"drive": "disk0", "bus": "xhci.0", "serial": "12345"},
            ),
        ),
        images=ONE,
        present=("xhci", "stick"),
    ),
    "vhost-user-blk": Case(
        devices=lambda images: (
            SocketChardev(id="link", path=f"{images}/vhost.sock"),
            Frontend(
                driver="vhost-user-blk-pci",
                id="blk",
                properties={"chardev": "link", "num-queues": 2},
                slot=True,
            ),
        ),
        machine=lambda _: {"needs": MemoryNeeds(shared=True)},
        images=ONE,
        present=("blk",),
        target=True,
    ),
    "nvdimm": Case(
        devices=lambda images: (
            memory("memory-backend-file", DISK_SIZE + 2 * MIB, images),
            Frontend(driver="nvdimm", id="dimm", properties={"memdev": "pmem", "label-size": 2 * MIB, "unarmed": True}),
        ),
        machine=lambda _: {"needs": MemoryNeeds(slots=1, hotplug=256 * MIB, nvdimm=True)},
        present=("dimm",),
    ),
    "virtio-pmem": Case(
        devices=lambda images: (
            memory("memory-backend-file", DISK_SIZE, images),
            Frontend(driver="virtio-pmem-pci", id="dimm", properties={"memdev": "pmem"}, slot=True),
        ),
        machine=lambda _: {"needs": MemoryNeeds(hotplug=256 * MIB)},
        present=("dimm",),
    ),
    "numa": Case(
        machine=lambda _: {
            "numa": ((64 * MIB, frozenset({0, 2})), (64 * MIB, frozenset({1}))),
            "cpus": 3,
            "needs": MemoryNeeds(shared=True),
        },
    ),
    "boot-image": Case(
        machine=lambda images: {
            "boot": BootDisk(path=f"{images}/disk0.raw", format="raw"),
            "network": "user",
            "display": "vnc",
        },
        images=ONE,
        present=("boot-disk", "network", "video"),
    ),
    "direct-boot": Case(
        machine=lambda images: {
            "boot": DirectBoot(kernel=f"{images}/vmlinuz", initrd=f"{images}/initrd", cmdline="console=ttyS0 a,b"),
            "accelerator": "kvm",
            "cpu_model": "host",
            "sandbox": False,
        },
        real=False,
    ),
    "hugepages": Case(
        machine=lambda _: {"hugepage": 2 * MIB, "memory_node": 0, "needs": MemoryNeeds(shared=True)},
        real=False,
    ),
    "hugetlbfs": Case(
        machine=lambda _: {"hugepage": 2 * MIB, "hugetlbfs": "/dev/hugepages", "memory_node": 1},
        real=False,
    ),
    "vfio": Case(
        devices=lambda _: (
            Object(qom_type="iommufd", id="iommufd0"),
            Frontend(
                driver="vfio-pci",
                id="drive",
                properties={"iommufd": "iommufd0"},
                slot=True,
                host=PciAddress.parse("0000:04:00.0"),
            ),
        ),
        machine=lambda _: {
            "accelerator": "kvm",
            "cpu_model": "host",
            "network": "bridge",
            "bridge": "br0",
            "extra": ("-device", "virtio-balloon-pci"),
        },
        real=False,
    ),
    "userspace": Case(
        devices=lambda _: (
            IOTHREAD,
            BlockNode(driver="nvme", node_name="drive", options={"device": "0000:05:00.0", "namespace": 1}),
            Frontend(driver="virtio-blk-pci", id="blk", properties={"drive": "drive", "iothread": "io0"}, slot=True),
        ),
        real=False,
    ),
}
