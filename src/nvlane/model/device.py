"""Typed devices: what a lane wants a VM to have. `qemu` renders them to arguments or QMP, `libvirt` to XML.

A device is data; it names its parts by id, and every id is unique in a machine. Properties that a value leaves at None
are left to QEMU. Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from nvlane.model.pci import PciAddress

#: A property of a QEMU device or object as JSON has it.
Scalar = str | int | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """A QEMU object (`-object`): memory backend, iothread, iommufd, secret. `qom_type` as QEMU names it."""

    TAGGED: ClassVar[bool] = True
    qom_type: str
    id: str
    properties: Mapping[str, Scalar | tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNode:
    """One node of QEMU's block graph (`-blockdev`). `options` may nest (`cache`, `file`)."""

    TAGGED: ClassVar[bool] = True
    driver: str
    node_name: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketChardev:
    """A UNIX socket that QEMU connects to (a vhost-user target listens). `reconnect_ms` 0 means never."""

    TAGGED: ClassVar[bool] = True
    id: str
    path: str
    reconnect_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """What the guest sees (`-device`). `slot` asks for a PCIe root port of its own, which is what lets it be
    hot-plugged; parts that sit on another device's bus name it in `properties['bus']` instead."""

    TAGGED: ClassVar[bool] = True
    driver: str
    id: str
    properties: Mapping[str, object] = field(default_factory=dict)
    slot: bool = False
    host: PciAddress | None = None


#: Places for devices that ask for a slot: PCIe root ports on a q35 board, numbers on the one bus of an i440fx.
PCIE_SLOTS: Final = 200
PCI_SLOTS: Final = 22
#: Memory devices that ACPI tables can describe (QEMU include/hw/acpi/acpi_dev_interface.h, ACPI_MAX_RAM_SLOTS).
MEMORY_SLOTS: Final = 256


def slot_room(machine_type: str) -> int:
    """How many devices with a slot a board of this type takes."""
    return PCI_SLOTS if machine_type == "pc" or machine_type.startswith("pc-i440fx") else PCIE_SLOTS


Device = Object | BlockNode | SocketChardev | Frontend


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """What the lanes ask of the guest's memory. They are joined over all lanes of a machine.

    `shared` for every vhost-user lane; `pinned` for every lane with VFIO (all guest memory is locked); `slots` and
    `hotplug` (bytes) for memory devices; `nvdimm` when `nvdimm=on` is needed; `durable` whether every NVDIMM that the
    guest may write keeps what is flushed, and None where there is no such.
    """

    shared: bool = False
    pinned: bool = False
    slots: int = 0
    hotplug: int = 0
    nvdimm: bool = False
    durable: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BootDisk:
    """The image that a machine boots from; `node` is its name in QEMU's block layer."""

    path: str
    format: str
    node: str = "boot"


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectBoot:
    """Kernel, initrd and command line, loaded by QEMU itself. `initrd` may be ''."""

    kernel: str
    initrd: str
    cmdline: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineDevice:
    """The machine around the lanes' devices: everything that `qemu.render` needs beside them, already decided.

    `runtime` is the directory of its sockets and logs. `hugepage` is the page size of guest memory in bytes (0: normal
    pages), `memory_node` and `cpus_of_vcpus` the placement (-1 and empty: anywhere).
    """

    name: str
    uuid: str
    machine_type: str
    accelerator: str
    cpu_model: str
    memory: int
    cpus: int
    runtime: str
    needs: MemoryNeeds
    hugepage: int = 0
    memory_node: int = -1
    hugetlbfs: str = ""
    boot: BootDisk | DirectBoot | None = None
    network: str = "none"
    bridge: str = ""
    display: str = "none"
    sandbox: bool = True
    root_ports: int = 0
    numa: tuple[tuple[int, frozenset[int]], ...] = ()  # guest nodes: (memory, vCPUs)
    extra: tuple[str, ...] = ()
    pins: frozenset[int] = frozenset()
