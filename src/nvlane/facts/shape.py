"""The values that make the picture of a host. All sizes are bytes unless the name says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from nvlane.model.pci import BRIDGE_BASE_CLASS, NVME_CLASS, PciAddress


class UseKind(StrEnum):
    """Ways in which a block device can be in use. Each is a reason to refuse to take the drive away."""

    ROOT = "root file system"
    MOUNT = "mounted file system"
    SWAP = "swap"
    LVM = "LVM physical volume"
    MD = "md array member"
    DM = "device-mapper target"
    CRYPT = "dm-crypt volume"
    MULTIPATH = "multipath member"
    BCACHE = "bcache member"
    BTRFS = "btrfs member"
    ZFS = "ZFS pool member"
    LOOP = "loop device"
    HOLDER = "kernel holder"
    OPEN = "open file handle"
    EXCLUSIVE = "claimed exclusively in the kernel"


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One use of a drive: `device` is the node in use ('nvme0n1p2'), `evidence` what was read and where."""

    kind: UseKind
    device: str
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a signature says is on an unused device: never a reason to refuse, always named ('ext4, label data')."""

    device: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """One NVMe namespace as the kernel's driver shows it. `name` is the block node ('nvme0n1')."""

    name: str
    nsid: int
    size: int
    block_size: int
    metadata_size: int = 0
    wwid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """One NVMe controller on PCI. `serial` and the namespaces are known only while the kernel's driver has it; a
    drive that nvlane took keeps them from the journal (`remembered`)."""

    address: PciAddress
    serial: str = ""
    model: str = ""
    controller: str = ""
    namespaces: tuple[Namespace, ...] = ()
    uses: tuple[Use, ...] = ()
    contents: tuple[Content, ...] = ()
    remembered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PciFunction:
    """One PCI function from /sys/bus/pci/devices. `numa_node` is -1 when the firmware does not say."""

    address: PciAddress
    vendor: int
    device: int
    pci_class: int
    driver: str = ""
    driver_override: str = ""
    iommu_group: int | None = None
    numa_node: int = -1
    physical_function: PciAddress | None = None
    sriov_total: int = 0
    sriov_enabled: int = 0
    reset_methods: tuple[str, ...] = ()
    network_interfaces: tuple[str, ...] = ()

    @property
    def is_nvme(self) -> bool:
        return self.pci_class == NVME_CLASS

    @property
    def is_bridge(self) -> bool:
        return self.pci_class >> 16 == BRIDGE_BASE_CLASS


@dataclass(frozen=True, slots=True, kw_only=True)
class HugepagePool:
    """The pool of one page size on one NUMA node (counts of pages)."""

    node: int
    page_size: int
    total: int
    free: int
    surplus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """One NUMA node: its processors and memory. `free_contiguous` is what the buddy allocator could still give as
    2 MiB or larger blocks (/proc/buddyinfo), the upper bound of what hugepages can be made without compaction."""

    node: int
    cpus: frozenset[int]
    memory_total: int
    memory_free: int
    free_contiguous: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount of a subject that matters (hugetlbfs and DAX ones)."""

    target: str
    fstype: str
    source: str
    options: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Vfio:
    """What VFIO can do here. `cdev` is /dev/iommu plus VFIO_DEVICE_CDEV; `container` /dev/vfio/vfio."""

    module_available: bool
    type1_available: bool
    container: bool
    cdev: bool
    no_iommu_mode: bool
    uio_available: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kvm:
    """Whether KVM really works: a device node alone proves nothing."""

    usable: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Qemu:
    """What one QEMU binary said of itself: nothing here is assumed from its version."""

    path: str
    version: str
    machines: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # device type -> its properties
    objects: tuple[str, ...] = ()
    block_drivers: tuple[str, ...] = ()
    aio: tuple[str, ...] = ()  # ways of asynchronous I/O on files: 'threads', 'native', 'io_uring'
    sandbox: bool = False
    reconnect_ms: bool = False  # a socket's chardev connects again after milliseconds (QEMU 9.2), not only seconds
    pmem: bool = True  # False: a build without libpmem, which refuses pmem=on of memory-backend-file
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageDaemon:
    """The qemu-storage-daemon binary: its version and the exports it can make."""

    path: str
    version: str
    exports: tuple[str, ...] = ()
    block_drivers: tuple[str, ...] = ()
    aio: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """nvlane's own vhost-user target, the program `nvlane-target`."""

    path: str
    version: str
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaxDevice:
    """A character device for persistent memory (/dev/daxX.Y): size and alignment of a mapping. Only under the driver
    device_dax can it be mapped; '' is no driver at all."""

    path: str
    size: int
    alignment: int
    numa_node: int
    driver: str = "device_dax"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFacts:
    """What stands at a path that the spec names. `kind` is 'absent' for none; `format` is what qemu-img says of an
    image; `virtual_size` the size that a guest would see; `dax` whether the file system is mounted with DAX."""

    path: str
    kind: str
    size: int = 0
    format: str = ""
    virtual_size: int = 0
    filesystem: str = ""
    dax: bool = False
    free_space: int = 0
    parent_exists: bool = True
    writable: bool = True
    uses: tuple[Use, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that children can be given: `memlock` is the hard limit in bytes, None for unlimited; `can_raise` when
    this process may go past it (CAP_SYS_RESOURCE)."""

    memlock: int | None
    can_raise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Content read on the host, read only, of something that the spec names: SHA-256 over the byte ranges
    ((offset, length), ...) one after the other. `of` is 'ADDRESS:NSID' for a drive, else a path."""

    of: str
    ranges: tuple[tuple[int, int], ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricConnection:
    """One controller that this host has over a fabric, as sysfs tells it; `state` is 'live' when it can be used."""

    controller: str
    nqn: str
    transport: str
    address: str = ""
    service: str = ""
    host_address: str = ""
    host_nqn: str = ""
    state: str = ""
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPort:
    """A port of the kernel's NVMe target (nvmet), and the NQNs of the subsystems that it offers."""

    number: int
    transport: str
    address: str = ""
    service: str = ""
    subsystems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedNamespace:
    """A namespace of nvmet: the file or block device behind it."""

    nsid: int
    path: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedSubsystem:
    """A subsystem of nvmet."""

    nqn: str
    any_host: bool
    hosts: tuple[str, ...] = ()
    namespaces: tuple[ExportedNamespace, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fabrics:
    """NVMe over Fabrics here. `options` are those that the kernel takes for a connection: none while nvme-fabrics is
    not loaded, for then it cannot be asked."""

    host_nqn: str = ""
    host_id: str = ""
    options: tuple[str, ...] = ()
    configfs: bool = False
    connections: tuple[FabricConnection, ...] = ()
    ports: tuple[ExportPort, ...] = ()
    subsystems: tuple[ExportedSubsystem, ...] = ()
    #: tlshd, which does the handshakes of kernel sockets, runs in this network name space; the keyring for its keys
    #: is there. It takes that keyring for its own when it starts, and only then.
    tls_daemon: bool = False
    tls_keyring: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The whole picture. `taken` is seconds since the epoch, for people; plans must not depend on it."""

    hostname: str
    kernel: str
    architecture: str
    boot_id: str
    uid: int
    cpus: frozenset[int]
    memory_total: int
    state_dir: str
    runtime_dir: str
    emulated: bool = False  # QEMU itself executes this host's instructions (TCG)
    iommu: str = ""  # 'intel', 'amd', 'other' or '' for none
    functions: tuple[PciFunction, ...] = ()
    drives: tuple[Drive, ...] = ()
    nodes: tuple[NumaNode, ...] = ()
    hugepages: tuple[HugepagePool, ...] = ()
    default_hugepage: int = 0
    hugepages_reserved: Mapping[int, int] = field(default_factory=dict)  # page size -> free pages that are promised
    hugetlbfs: tuple[Mount, ...] = ()
    modules: tuple[str, ...] = ()  # loaded or built in, of those that matter to a lane
    loadable: tuple[str, ...] = ()  # not loaded, but modprobe would find them
    limits: Limits = Limits(memlock=None, can_raise=True)
    vfio: Vfio | None = None
    kvm: Kvm = Kvm(usable=False, reason="not probed")
    qemu: Qemu | None = None
    storage_daemon: StorageDaemon | None = None
    target: Target | None = None
    dax_devices: tuple[DaxDevice, ...] = ()
    paths: tuple[PathFacts, ...] = ()
    fingerprints: tuple[Fingerprint, ...] = ()
    machines: tuple[str, ...] = ()  # names of nvlane's own machines that are up
    bridges: tuple[str, ...] = ()  # network bridges
    fabrics: Fabrics = Fabrics()
    probe_kernel: str = ""  # kernel and initrd of nvlane's own probe guest, '' when none could be made
    probe_initrd: str = ""
    probe_cmdline: str = ""
    unknown: tuple[str, ...] = ()  # what could not be seen, each a sentence with the remedy
    taken: float = 0.0

    def function(self, address: PciAddress) -> PciFunction | None:
        return next((f for f in self.functions if f.address == address), None)

    def drive(self, address: PciAddress) -> Drive | None:
        return next((d for d in self.drives if d.address == address), None)

    def group(self, number: int) -> tuple[PciFunction, ...]:
        return tuple(f for f in self.functions if f.iommu_group == number)

    def fingerprint(self, of: str) -> Fingerprint | None:
        return next((f for f in self.fingerprints if f.of == of), None)

    def path(self, path: str) -> PathFacts:
        for facts in self.paths:
            if facts.path == path:
                return facts
        return PathFacts(path=path, kind="unread", error="this facts file does not tell of it")
