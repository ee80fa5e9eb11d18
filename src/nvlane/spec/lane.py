"""The [[lane]] tables, one class a kind. A new lane is a new class here, named in `Lane`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from nvlane.model.fabrics import DEFAULT_PORT, Transport
from nvlane.model.size import KIB, MIB
from nvlane.spec.key import Kind, key

_NAME = r"([a-z0-9][a-z0-9-]{0,30})?"
_NQN = r"nqn\.\d{4}-\d{2}\.[!-+\--~]{1,212}"  # a comma would end it in the kernel's list of options
_SERIAL = r"[!-~]{0,20}"  # NVMe Base Specification 2.0, Identify Controller, SN: 20 ASCII characters


class LaneKind(StrEnum):
    EMULATED = "emulated"
    PASSTHROUGH = "passthrough"
    USERSPACE = "userspace"
    VHOST_USER = "vhost-user"
    NVDIMM = "nvdimm"
    FABRICS = "fabrics"


class BlockFrontend(StrEnum):
    """Front ends for a node of QEMU's block graph."""

    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    NVME = "nvme"
    SATA = "sata"
    USB = "usb"


class VhostFrontend(StrEnum):
    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"


class VfioBackend(StrEnum):
    """AUTO takes iommufd where QEMU and the kernel have it, the VFIO container otherwise."""

    AUTO = "auto"
    IOMMUFD = "iommufd"
    CONTAINER = "container"


class Backing(StrEnum):
    HUGEPAGES = "hugepages"
    MEMORY = "memory"
    FILE = "file"
    DAX = "dax"


class PmemDevice(StrEnum):
    """AUTO takes virtio-pmem where the backing cannot keep an NVDIMM's promise (a file in the page cache)."""

    AUTO = "auto"
    NVDIMM = "nvdimm"
    VIRTIO_PMEM = "virtio-pmem"


class PmemMode(StrEnum):
    """What the guest shall make of it: nothing (raw), a disk whose file systems may use DAX (fsdax), a device that
    programs map (devdax), or a disk whose sectors are written whole or not at all (sector)."""

    RAW = "raw"
    FSDAX = "fsdax"
    DEVDAX = "devdax"
    SECTOR = "sector"


class Filesystem(StrEnum):
    NONE = ""
    EXT4 = "ext4"
    XFS = "xfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Zoned:
    """Zoned Namespace Command Set parameters ([lane.namespaces.zoned])."""

    zone_size: int = key("Size of a zone.", kind=Kind.SIZE, default=128 * MIB, minimum=4 * KIB, example="128MiB")
    zone_capacity: int = key("Writable part of a zone; 0: all of it.", kind=Kind.SIZE, default=0)
    max_open: int = key("Zones that may be open at once; 0: no limit.", default=0, minimum=0)
    max_active: int = key("Zones that may be active at once; 0: no limit.", default=0, minimum=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fdp:
    """Flexible Data Placement of the subsystem ([lane.fdp])."""

    reclaim_groups: int = key("Reclaim groups.", default=1, minimum=1)
    handles: int = key("Reclaim unit handles.", default=16, minimum=1, maximum=128)
    reclaim_unit: int = key("Nominal size of a reclaim unit.", kind=Kind.SIZE, default=96 * MIB)


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedNamespace:
    """One namespace of an emulated controller, on an image or a block device."""

    image: str = key("Image file, created when `size` is given and it is not there.", kind=Kind.PATH, default="")
    device: str = key("Block device of the host.", kind=Kind.PATH, default="")
    size: int = key("Size of an image that is to be created.", kind=Kind.SIZE, default=0, example="5GiB")
    format: str = key("Image format; left out: by name (.qcow2), else raw.", default="", pattern=r"(raw|qcow2)?")
    nsid: int = key("Namespace identifier; 0: the next free one.", default=0, minimum=0, maximum=256)
    block_size: int = key("Logical block size in bytes: 512 or 4096.", default=512)
    metadata_size: int = key("Metadata bytes per block.", default=0, minimum=0, maximum=128)
    protection: int = key("Protection information type, 0 to 3.", default=0, minimum=0, maximum=3)
    read_only: bool = key("The guest cannot write.", default=False)
    uuid: str = key("UUID of the namespace.", default="", pattern=r"([0-9a-fA-F-]{36})?")
    zoned: Zoned | None = key("Makes it a zoned namespace.", default=None)
    handles: tuple[int, ...] = key("FDP reclaim unit handles of this namespace.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulated:
    """QEMU models an NVMe controller on images or block devices."""

    KIND: ClassVar[LaneKind] = LaneKind.EMULATED
    name: str = key("Name of the lane; left out, its kind and number.", default="", pattern=_NAME)
    write_proof: bool = key("The guest may write; the host reads it back after `down`.", default=False)
    serial: str = key("Serial number; left out, made of machine and lane.", default="", pattern=_SERIAL)
    namespaces: tuple[EmulatedNamespace, ...] = key("Its namespaces.", default=())
    nqn: str = key("NQN of its subsystem; makes a subsystem.", default="", pattern=r"(nqn\..{1,218})?")
    queues: int = key("I/O queue pairs; 0: one a vCPU.", default=0, minimum=0, maximum=65534)
    ioeventfd: bool = key("Doorbells without a trip through QEMU's main loop.", default=True)
    fdp: Fdp | None = key("Flexible Data Placement; makes a subsystem.", default=None)
    vfs: int = key("Virtual functions of SR-IOV; makes a subsystem.", default=0, minimum=0, maximum=127)
    cmb: int = key("Controller Memory Buffer; 0: none.", kind=Kind.SIZE, default=0, example="64MiB")
    pmr: int = key("Persistent Memory Region; 0: none.", kind=Kind.SIZE, default=0, example="64MiB")
    pmr_file: str = key("File that backs the PMR; left out, RAM.", kind=Kind.PATH, default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passthrough:
    """VFIO hands a whole controller, or one virtual function, to the guest."""

    KIND: ClassVar[LaneKind] = LaneKind.PASSTHROUGH
    name: str = key("Name of the lane; left out, its kind and number.", default="", pattern=_NAME)
    write_proof: bool = key("The guest may write; the host reads it back after `down`.", default=False)
    drive: str = key("The drive.", kind=Kind.DRIVE, example="serial:S4EVNX0M512345")
    iommu: VfioBackend = key("VFIO's way to the IOMMU.", default=VfioBackend.AUTO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Userspace:
    """QEMU's own VFIO-based NVMe driver behind any block front end."""

    KIND: ClassVar[LaneKind] = LaneKind.USERSPACE
    name: str = key("Name of the lane; left out, its kind and number.", default="", pattern=_NAME)
    write_proof: bool = key("The guest may write; the host reads it back after `down`.", default=False)
    drive: str = key("The drive.", kind=Kind.DRIVE, example="0000:05:00.0")
    namespace: int = key("The namespace to serve.", default=1, minimum=1)
    frontend: BlockFrontend = key("What the guest sees.", default=BlockFrontend.VIRTIO_BLK)
    iothread: bool = key("Serve it from a thread of its own, where the front end can.", default=True)
    read_only: bool = key("The guest cannot write.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class VhostUser:
    """A target process serves the guest through shared memory: one of drive, file, malloc and null."""

    KIND: ClassVar[LaneKind] = LaneKind.VHOST_USER
    name: str = key("Name of the lane; left out, its kind and number.", default="", pattern=_NAME)
    write_proof: bool = key("The guest may write; the host reads it back after `down`.", default=False)
    engine: str = key("The target: nvlane's own, or qemu-storage-daemon.", default="nvlane", pattern=r"[a-z-]+")
    frontend: VhostFrontend = key("What the guest sees.", default=VhostFrontend.VIRTIO_BLK)
    drive: str = key("A drive under the target's polled driver.", kind=Kind.DRIVE, default="")
    namespace: int = key("The namespace of the drive.", default=1, minimum=1)
    file: str = key("A raw file or block device.", kind=Kind.PATH, default="")
    size: int = key("Size of a file that is to be created.", kind=Kind.SIZE, default=0)
    malloc: int = key("Memory of this size.", kind=Kind.SIZE, default=0)
    null: int = key("A device of this size that keeps nothing.", kind=Kind.SIZE, default=0)
    block_size: int = key("Logical block size in bytes: 512 or 4096; 0: that of the drive, else 512.", default=0)
    queues: int = key("Queues; 0: one a vCPU.", default=0, minimum=0, maximum=256)
    cores: frozenset[int] = key(
        "Processors of the target; left out, it has one reactor on any of the drive's node.",
        kind=Kind.CPUS,
        default=frozenset(),
    )
    read_only: bool = key("The guest cannot write.", default=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PmemNamespace:
    """One of several namespaces that the guest makes in one NVDIMM, whose label area lists them."""

    name: str = key("Its name in the label area.", pattern=r"[a-z0-9][a-z0-9-]{0,30}", example="log")
    size: int = key("Its size, page or sector map included.", kind=Kind.SIZE, minimum=16 * MIB, example="1GiB")
    mode: PmemMode = key("What it is.", default=PmemMode.RAW)
    sector_size: int = key("Bytes of a sector, 512 or 4096, in mode `sector`.", default=4096)
    align: int = key(
        "Pages by which `fsdax` and `devdax` are mapped: 4KiB, 2MiB or 1GiB; 0: 2MiB.", kind=Kind.SIZE, default=0
    )
    filesystem: Filesystem = key("File system on it; mounted with DAX in mode `fsdax`.", default=Filesystem.NONE)
    mountpoint: str = key("Where the guest mounts it.", default="/mnt/pmem", pattern=r"/.+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nvdimm:
    """Persistent memory: an NVDIMM, or virtio-pmem where the backing cannot keep an NVDIMM's promise."""

    KIND: ClassVar[LaneKind] = LaneKind.NVDIMM
    name: str = key("Name of the lane; left out, its kind and number.", default="", pattern=_NAME)
    write_proof: bool = key("The guest may write; the host reads it back after `down`.", default=False)
    backing: Backing = key("What it is made of.", example="hugepages")
    size: int = key(
        "Usable size, without the label; 0: all of the DAX device.", kind=Kind.SIZE, default=0, example="4GiB"
    )
    path: str = key("The file or DAX device.", kind=Kind.PATH, default="")
    label: int = key("Size of the label area; 0: none.", kind=Kind.SIZE, default=0, example="2MiB")
    hugepage_size: int = key("Page size of a hugepage backing.", kind=Kind.SIZE, default=2 * MIB)
    node: int | None = key(
        "The host's NUMA node for a backing of hugepages or memory; left out, that of the machine.",
        default=None,
        minimum=0,
    )
    guest_node: int | None = key("The guest's NUMA node that it belongs to.", default=None, minimum=0)
    device: PmemDevice = key("NVDIMM or virtio-pmem.", default=PmemDevice.AUTO)
    armed: bool = key("Let the guest write to an NVDIMM on a file in the page cache.", default=False)
    read_only: bool = key("The guest cannot write.", default=False)
    mode: PmemMode = key("What the guest makes of it.", default=PmemMode.RAW)
    sector_size: int = key("Bytes of a sector, 512 or 4096, in mode `sector`.", default=4096)
    align: int = key(
        "Pages by which `fsdax` and `devdax` are mapped: 4KiB, 2MiB or 1GiB; 0: 2MiB.", kind=Kind.SIZE, default=0
    )
    filesystem: Filesystem = key(
        "File system that the guest makes on it; mounted with DAX but in mode `sector`.", default=Filesystem.NONE
    )
    mountpoint: str = key("Where the guest mounts it.", default="/mnt/pmem", pattern=r"/.+")
    namespaces: tuple[PmemNamespace, ...] = key("Several namespaces in place of one.", default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabrics:
    """A namespace that another host exports over tcp, rdma or fc: this host connects, and the guest gets it."""

    KIND: ClassVar[LaneKind] = LaneKind.FABRICS
    name: str = key("Name of the lane; left out, its kind and number.", default="", pattern=_NAME)
    write_proof: bool = key("The guest may write; the host reads it back after the guest has ended.", default=False)
    transport: Transport = key("What carries the commands.", default=Transport.TCP)
    address: str = key("The Target: an IP address, or nn-0x…:pn-0x… for fc.", default="", example="10.0.0.2")
    paths: tuple[str, ...] = key("Further addresses of the same subsystem; the kernel joins them.", default=())
    port: int = key("The Target's port, for tcp and rdma.", default=DEFAULT_PORT, minimum=1, maximum=65535)
    host_address: str = key("The address here; fc needs it.", default="")
    nqn: str = key("The subsystem.", pattern=_NQN, example="nqn.2014-08.org.example:disks")
    namespace: int = key("The namespace to serve.", default=1, minimum=1)
    host_nqn: str = key("Come as this host; left out, /etc/nvme/hostnqn.", default="", pattern=f"({_NQN})?")
    secret: str = key("File with this host's DH-HMAC-CHAP key.", kind=Kind.PATH, default="")
    controller_secret: str = key("File with the Target's key, to see who it is.", kind=Kind.PATH, default="")
    tls: bool = key("With TLS (tcp; needs tlshd).", default=False)
    tls_key: str = key("File with the TLS key of this host there.", kind=Kind.PATH, default="")
    controller_loss: int = key("Seconds until a lost Target is given up; -1: never.", default=-1, minimum=-1)
    reconnect_delay: int = key("Seconds from one try to reconnect to the next.", default=2, minimum=1)
    fast_io_fail: int = key("Seconds of loss after which I/O fails; -1: it waits.", default=-1, minimum=-1)
    frontend: BlockFrontend = key("What the guest sees.", default=BlockFrontend.VIRTIO_BLK)
    engine: str = key("A vhost-user target in QEMU's place; left out, none.", default="", pattern=r"[a-z-]*")
    block_size: int = key("Logical block size of the namespace in bytes: 512 or 4096.", default=512)
    iothread: bool = key("Serve it from a thread of its own, where the front end can.", default=True)
    read_only: bool = key("The guest cannot write.", default=False)


Lane = Emulated | Passthrough | Userspace | VhostUser | Nvdimm | Fabrics
