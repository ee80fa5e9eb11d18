"""The lanes that are given to every domain of the corpus, with the libvirt that they are given by."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nvlane.libvirt.capabilities import SINCE, LibvirtCapabilities, Version
from nvlane.model.device import BlockNode, Device, Frontend, MemoryNeeds, Object, SocketChardev
from nvlane.model.pci import PciAddress
from nvlane.model.size import GIB, MIB

DOMAINS = sorted((Path(__file__).parent / "domains").glob("*.xml"))
NEW: Version = (12, 8, 0)


def libvirt(version: Version = (9, 0, 0)) -> LibvirtCapabilities:
    return LibvirtCapabilities(
        libvirt=version,
        qemu=(10, 0, 2),
        emulator="/usr/bin/qemu-system-x86_64",
        domain_type="kvm",
        arch="x86_64",
        machine="q35",
        features=frozenset(feature for feature, since in SINCE.items() if version >= since),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    devices: tuple[Device, ...]
    needs: MemoryNeeds = field(default_factory=MemoryNeeds)
    version: Version = (9, 0, 0)
    hugepage: int = 0


def _image(lane: str, path: str, fmt: str = "qcow2") -> BlockNode:
    file = {
        "driver": "file",
        "filename": path,
        "aio": "native",
        "cache": {"direct": True, "no-flush": False},
        "discard": "unmap",
    }
    return BlockNode(driver=fmt, node_name=f"{lane}-disk0", options={"file": file, "discard": "unmap"})


def _emulated(lane: str) -> tuple[Device, ...]:
    controller = {"serial": "12345", "ioeventfd": True, "max_ioqpairs": 4, "msix_qsize": 5}
    blocks = {"logical_block_size": 512, "physical_block_size": 512}
    return (
        _image(lane, "/var/lib/libvirt/images/lane, with comma & 'quotes'.qcow2"),
        Frontend(driver="nvme", id=lane, properties=controller, slot=True),
        Frontend(
            driver="nvme-ns", id=f"{lane}-ns1", properties={"drive": f"{lane}-disk0", "bus": lane, "nsid": 1, **blocks}
        ),
    )


def _zoned(lane: str) -> tuple[Device, ...]:
    zones = {"zoned": True, "zoned.zone_size": 128 * MIB, "logical_block_size": 4096, "physical_block_size": 4096}
    return (
        _image(lane, "/srv/zns.img", "raw"),
        Frontend(driver="nvme-subsys", id=f"{lane}-subsys", properties={"nqn": f"vm-{lane}", "fdp": True}),
        Frontend(driver="nvme", id=lane, properties={"serial": "zns", "subsys": f"{lane}-subsys"}, slot=True),
        Frontend(
            driver="nvme-ns", id=f"{lane}-ns1", properties={"drive": f"{lane}-disk0", "bus": lane, "nsid": 1, **zones}
        ),
    )


def _passthrough(lane: str) -> tuple[Device, ...]:
    address = PciAddress.parse("0000:81:00.0")
    backend = Object(qom_type="iommufd", id=f"{lane}-iommufd")
    properties = {"host": str(address), "iommufd": backend.id}
    return (backend, Frontend(driver="vfio-pci", id=lane, properties=properties, slot=True, host=address))


def _drive(lane: str) -> BlockNode:
    options = {"device": "0000:82:00.0", "namespace": 1, "discard": "unmap"}
    return BlockNode(driver="nvme", node_name=f"{lane}-drive", options=options)


def _userspace_blk(lane: str) -> tuple[Device, ...]:
    properties = {
        "drive": f"{lane}-drive",
        "serial": "PHLJ0000",
        "logical_block_size": 4096,
        "physical_block_size": 4096,
        "iothread": f"{lane}-io",
        "num-queues": 4,
    }
    return (
        _drive(lane),
        Object(qom_type="iothread", id=f"{lane}-io"),
        Frontend(driver="virtio-blk-pci", id=lane, properties=properties, slot=True),
    )


def _userspace_scsi(lane: str) -> tuple[Device, ...]:
    disk = {"drive": f"{lane}-drive", "serial": "PHLJ0000", "bus": f"{lane}.0", "scsi-id": 0, "lun": 0}
    return (
        _drive(lane),
        Object(qom_type="iothread", id=f"{lane}-io"),
        Frontend(driver="virtio-scsi-pci", id=lane, properties={"iothread": f"{lane}-io", "num_queues": 4}, slot=True),
        Frontend(driver="scsi-hd", id=f"{lane}-disk", properties=disk),
    )


def _vhost(lane: str, driver: str, queues: str) -> tuple[Device, ...]:
    link = SocketChardev(id=f"{lane}-link", path=f"/run/nvlane/vm/{lane}/vhost.sock", reconnect_ms=20)
    return (link, Frontend(driver=driver, id=lane, properties={"chardev": link.id, queues: 4}, slot=True))


def _nvdimm(lane: str) -> tuple[Device, ...]:
    backend = {"size": 1026 * MIB, "share": True, "mem-path": "/mnt/pmem/nv.img", "align": 2 * MIB, "pmem": True}
    return (
        Object(qom_type="memory-backend-file", id=f"{lane}-mem", properties=backend),
        Frontend(driver="nvdimm", id=lane, properties={"memdev": f"{lane}-mem", "label-size": 2 * MIB}),
    )


def _virtio_pmem(lane: str) -> tuple[Device, ...]:
    backend = {"size": 1024 * MIB, "share": True, "mem-path": "/srv/pmem.img"}
    return (
        Object(qom_type="memory-backend-file", id=f"{lane}-mem", properties=backend),
        Frontend(driver="virtio-pmem-pci", id=lane, properties={"memdev": f"{lane}-mem"}, slot=True),
    )


def _nvdimm_in_memory(lane: str) -> tuple[Device, ...]:
    backend = {"size": 1024 * MIB, "share": True, "hugetlb": True, "hugetlbsize": 2 * MIB, "prealloc": True}
    return (
        Object(qom_type="memory-backend-memfd", id=f"{lane}-mem", properties=backend),
        Frontend(driver="nvdimm", id=lane, properties={"memdev": f"{lane}-mem"}),
    )


_MEMORY = MemoryNeeds(slots=1, hotplug=3 * GIB, nvdimm=True)
_PINNED, _SHARED = MemoryNeeds(pinned=True), MemoryNeeds(shared=True)
KINDS = (
    "emulated",
    "emulated-new",
    "zoned",
    "passthrough",
    "passthrough-new",
    "userspace-blk",
    "userspace-scsi",
    "vhost-blk",
    "vhost-scsi",
    "nvdimm",
    "virtio-pmem",
    "nvdimm-in-memory",
)


def lane(kind: str, name: str) -> Lane:
    """A lane of this kind; all its ids begin with `name`."""
    match kind:
        case "emulated":
            return Lane(devices=_emulated(name))
        case "emulated-new":
            return Lane(devices=_emulated(name), version=NEW)
        case "zoned":
            return Lane(devices=_zoned(name), version=NEW)
        case "passthrough":
            return Lane(devices=_passthrough(name), needs=_PINNED)
        case "passthrough-new":
            return Lane(devices=_passthrough(name), needs=_PINNED, version=NEW)
        case "userspace-blk":
            return Lane(devices=_userspace_blk(name), needs=_PINNED)
        case "userspace-scsi":
            return Lane(devices=_userspace_scsi(name), needs=_PINNED)
        case "vhost-blk":
            return Lane(devices=_vhost(name, "vhost-user-blk-pci", "num-queues"), needs=_SHARED)
        case "vhost-scsi":
            devices = _vhost(name, "vhost-user-scsi-pci", "num_queues")
            return Lane(devices=devices, needs=_SHARED, hugepage=2 * MIB)
        case "nvdimm":
            return Lane(devices=_nvdimm(name), needs=_MEMORY)
        case "virtio-pmem":
            return Lane(devices=_virtio_pmem(name), needs=_MEMORY)
        case "nvdimm-in-memory":
            return Lane(devices=_nvdimm_in_memory(name), needs=_MEMORY)
    raise AssertionError(kind)
