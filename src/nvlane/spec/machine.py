"""The [machine] table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nvlane.model.size import MIB
from nvlane.spec.key import Kind, key


class Network(StrEnum):
    NONE = "none"
    USER = "user"
    BRIDGE = "bridge"


class Display(StrEnum):
    NONE = "none"
    VNC = "vnc"
    GTK = "gtk"
    SDL = "sdl"


class Accelerator(StrEnum):
    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class MemoryBacking(StrEnum):
    """What guest memory is made of.

    AUTO takes hugepages where a lane gains by them and the pool has them, else memfd where a lane shares
    memory, else anonymous memory."""

    AUTO = "auto"
    HUGEPAGES = "hugepages"
    MEMFD = "memfd"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestNode:
    """One NUMA node of the guest ([[machine.numa]])."""

    cpus: frozenset[int] = key(
        "The vCPUs of this guest node; left out: memory only.", kind=Kind.CPUS, default=frozenset(), example="0-1"
    )
    memory: int = key("The memory of this guest node.", kind=Kind.SIZE, minimum=64 * MIB, example="1GiB")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The virtual machine. Without `image` and `kernel` it boots nvlane's own diskless probe guest."""

    name: str = key(
        "The machine's name, unique on this host.",
        pattern=r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}",
        example="sles15",
    )
    connect: str = key(
        "libvirt's connection URI: the machine is then the libvirt domain of this name, and the other keys of this "
        "table are left out.",
        default="",
        example="qemu:///system",
    )
    memory: int = key("Guest memory.", kind=Kind.SIZE, default=1024 * MIB, minimum=64 * MIB, example="2GiB")
    cpus: int = key("Number of vCPUs.", default=2, minimum=1, maximum=1024)
    type: str = key("QEMU's machine type.", default="q35", pattern=r"[A-Za-z0-9._-]+", example="q35")
    accelerator: Accelerator = key("KVM where it really works, else TCG.", default=Accelerator.AUTO)
    image: str = key("Disk image to boot from.", kind=Kind.PATH, default="", example="disk0.qcow2")
    image_format: str = key("Format of the image; left out, qemu-img is asked.", default="", pattern=r"[a-z0-9]*")
    kernel: str = key("Kernel to boot directly.", kind=Kind.PATH, default="")
    initrd: str = key("Initial RAM disk for `kernel`.", kind=Kind.PATH, default="")
    cmdline: str = key("Command line for `kernel`.", default="")
    network: Network = key("Network of the guest.", default=Network.NONE)
    bridge: str = key('The host\'s bridge, for network = "bridge".', default="")
    display: Display = key("Display of the guest; its serial console is always there.", default=Display.NONE)
    memory_backing: MemoryBacking = key("What guest memory is made of.", default=MemoryBacking.AUTO)
    hugepage_size: int = key("Size of hugepages.", kind=Kind.SIZE, default=2 * MIB, example="1GiB")
    node: int | None = key("The host's NUMA node to run on; left out, the node of the drives.", default=None, minimum=0)
    numa: tuple[GuestNode, ...] = key("The guest's own NUMA nodes.", default=())
    qemu: str = key("The QEMU binary.", default="qemu-system-x86_64")
    sandbox: bool = key("Run QEMU under its seccomp sandbox where the build has it.", default=True)
    qemu_args: tuple[str, ...] = key("Further QEMU arguments, appended as they are and never parsed.", default=())
