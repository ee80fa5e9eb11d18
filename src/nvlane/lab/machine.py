"""The virtual host as a value, and the QEMU arguments it becomes: a pure function.

::

    pcie.0 ── intel-iommu, virtio-rng, virtio-net (ssh), virtio-blk x2 (nvlane itself), LABROOT
       ├── slot 0x10: LABSIBA, LABSIBB      two functions of one slot, no ACS: one IOMMU group
       ├── root port ── LABDRIVE1 ...       hot-pluggable
       └── pxb-pcie on NUMA node 1 ── root port ── LABDRIVE2
    nvdimm ── 1 GiB + label
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import assert_never
from uuid import UUID

from nvlane.lab.drives import DRIVES, GIB, MIB, LabDrive, Place

ROOT_PARTITION = UUID("6e766c61-6e65-4c61-8b00-000000000003")
QMP_FD = 10
CONSOLE_FD = 11
"""Descriptors in QEMU on which its monitor and its console listen; nvlane made both sockets."""

# Under TCG `max` models an AMD processor; `svm` is what gives KVM inside (kvm_amd, nested paging). Without the flags
# of fast string instructions the kernel copies and clears with plain moves, which TCG runs faster: a guest inside the
# lab boots with a fifth less processor time.
_TCG_PROCESSOR = "max,svm=on,erms=off,fsrm=off,fzrm=off,fsrs=off"
_SIBLING_SLOT = 0x10
NODES = 2
_SECOND_NODE = "node1"
_LABEL_BYTES = 2 * MIB


class Accelerator(StrEnum):
    """Who executes the lab's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class Kernel(StrEnum):
    """Which of Debian's kernels the lab runs: `cloud` starts twice as fast, `full` has RDMA and USB."""

    CLOUD = "cloud"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabMachine:
    """What the virtual host is made of. `memory` and `pmem` are bytes; `pmem` is the usable size."""

    name: str = "lab"
    accelerator: Accelerator = Accelerator.TCG
    memory: int = 6 * GIB
    cpus: int = 2
    drives: tuple[LabDrive, ...] = DRIVES
    pmem: int = GIB
    kernel: Kernel = Kernel.CLOUD
    append: str = ""

    @property
    def pmem_image_bytes(self) -> int:
        """Usable size and label together: the kernel wants the region, without the label, aligned to 16 MiB."""
        return self.pmem + _LABEL_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class LabFiles:
    """Where the machine's files are: drive images, what comes from the cache, and the log of its console.

    `initrd` and `modules` (a disk) are there for a kernel that needs them.
    """

    disks: Path
    kernel: Path
    site: Path
    console_log: Path
    initrd: Path | None = None
    modules: Path | None = None


def arguments(machine: LabMachine, files: LabFiles) -> tuple[str, ...]:
    """QEMU's arguments for this machine, without the program's name."""
    return (
        *_board(machine),
        *_boot(machine, files),
        *_control(files),
        *_block(files.disks / "root.qcow2", "root", driver="qcow2"),
        *_device(driver="nvme", drive="root", serial="LABROOT", bus="pcie.0"),
        *_block(files.disks / "payload.img", "payload"),
        *_device(driver="virtio-blk-pci", drive="payload"),
        *_block(files.site, "site", read_only=True),
        *_device(driver="virtio-blk-pci", drive="site"),
        *_modules(files),
        *_pmem(machine, files),
        *_second_node(machine),
        *(word for index, drive in enumerate(machine.drives, 1) for word in _drive(machine, drive, index, files)),
    )


def _board(machine: LabMachine) -> tuple[str, ...]:
    kvm = machine.accelerator is Accelerator.KVM
    numa: list[str] = []
    for node in range(NODES):
        # With one processor the second node has memory and drives only, as a real one may.
        cpus = "".join(f"cpus={cpu}," for cpu in range(machine.cpus) if cpu * NODES // machine.cpus == node)
        backend = {"qom-type": "memory-backend-ram", "id": f"ram{node}", "size": machine.memory // NODES}
        numa += ["-object", json.dumps(backend), "-numa", f"node,nodeid={node},{cpus}memdev=ram{node}"]
    return (
        # The IOMMU's interrupt remapping needs the interrupt controller outside the kernel (QEMU, intel_iommu.c).
        "-machine", "q35,nvdimm=on" + (",kernel-irqchip=split" if kvm else ""),
        "-accel", "kvm" if kvm else "tcg,thread=multi,tb-size=512",
        "-cpu", "host" if kvm else _TCG_PROCESSOR,
        "-smp", str(machine.cpus),
        "-m", f"{machine.memory // MIB}M,slots=2,maxmem={(machine.memory + 4 * machine.pmem) // MIB}M",
        *numa,
        "-nodefaults", "-no-user-config", "-display", "none", "-name", f"nvlane-{machine.name}",
        *_device(driver="intel-iommu", intremap="on"),
        *_device(driver="virtio-rng-pci"),
    )  # fmt: skip


def _boot(machine: LabMachine, files: LabFiles) -> tuple[str, ...]:
    command_line = (
        f"root=PARTUUID={ROOT_PARTITION} rootwait ro init=/usr/sbin/nvlane-lab-init console=ttyS0 quiet "
        "intel_iommu=on iommu=pt mitigations=off tsc=reliable random.trust_cpu=on"
    )
    if machine.accelerator is Accelerator.TCG:
        # A processor of another node would measure its own loops_per_jiffy, for half a second (init/calibrate.c).
        command_line += " lpj=4600000"
    initrd = ("-initrd", str(files.initrd)) if files.initrd else ()
    return ("-kernel", str(files.kernel), *initrd, "-append", f"{command_line} {machine.append}".rstrip())


def _modules(files: LabFiles) -> tuple[str, ...]:
    """The disk that the initramfs finds by this serial."""
    if files.modules is None:
        return ()
    disk = _device(driver="virtio-blk-pci", drive="modules", serial="LABKERNEL")
    return (*_block(files.modules, "modules", read_only=True), *disk)


def _control(files: LabFiles) -> tuple[str, ...]:
    return (
        "-chardev", f"socket,id=qmp,fd={QMP_FD},server=on,wait=off",
        "-mon", "chardev=qmp,mode=control",
        "-chardev", f"socket,id=console,fd={CONSOLE_FD},server=on,wait=off,logfile={files.console_log}",
        "-serial", "chardev:console",
        # Port 0: the kernel chooses a free one, and the monitor's `info usernet` says which.
        "-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22",
        *_device(driver="virtio-net-pci", netdev="net", romfile=""),
    )  # fmt: skip


def _pmem(machine: LabMachine, files: LabFiles) -> tuple[str, ...]:
    backend = {
        "qom-type": "memory-backend-file",
        "id": "pmem",
        "mem-path": str(files.disks / "pmem.img"),
        "size": machine.pmem_image_bytes,
        "share": True,
    }
    return (
        "-object", json.dumps(backend),
        *_device(driver="nvdimm", id="nvdimm", memdev="pmem", **{"label-size": _LABEL_BYTES}),
    )  # fmt: skip


def _second_node(machine: LabMachine) -> tuple[str, ...]:
    if all(drive.node == 0 for drive in machine.drives):
        return ()
    return _device(driver="pxb-pcie", id=_SECOND_NODE, bus="pcie.0", bus_nr=0x40, numa_node=1)


def _drive(machine: LabMachine, drive: LabDrive, index: int, files: LabFiles) -> tuple[str, ...]:
    words: list[str] = []
    for nsid in range(1, len(drive.namespaces) + 1):
        words += _block(files.disks / drive.image(nsid), _node(drive, nsid))
    if drive.place is Place.ROOT_PORT:
        bus = _SECOND_NODE if drive.node == 1 else "pcie.0"
        words += _device(driver="pcie-root-port", id=_port(drive), chassis=index, slot=index, bus=bus)
    for device in devices(drive, machine.drives):
        words += _device(**device)
    return tuple(words)


def devices(drive: LabDrive, all_drives: tuple[LabDrive, ...]) -> tuple[dict[str, object], ...]:
    """The drive's devices, for the command line or for `device_add`.

    Only a controller that has its one namespace in itself (`drive=`) can be plugged in while the machine runs: the
    bus of an `nvme-ns` takes none then (QEMU, hw/nvme/ctrl.c).
    """
    controller: dict[str, object] = {"driver": "nvme", "id": drive.id, "serial": drive.serial}
    match drive.place:
        case Place.ROOT_PORT:
            controller["bus"] = _port(drive)
        case Place.SIBLINGS:
            siblings = [other.serial for other in all_drives if other.place is Place.SIBLINGS]
            function = siblings.index(drive.serial)
            controller |= {"bus": "pcie.0", "addr": f"{_SIBLING_SLOT:#x}.{function}", "multifunction": True}
        case _:
            assert_never(drive.place)
    blocks = [{"logical_block_size": each.block, "physical_block_size": each.block} for each in drive.namespaces]
    if len(drive.namespaces) == 1 and not drive.virtual_functions:
        return ({**controller, "drive": _node(drive, 1), **blocks[0]},)
    before: list[dict[str, object]] = []
    if drive.virtual_functions:
        before.append({"driver": "nvme-subsys", "id": f"{drive.id}-subsystem", "nqn": drive.id})
        controller |= {"subsys": f"{drive.id}-subsystem", **_functions(drive.virtual_functions)}
    namespaces: list[dict[str, object]] = [
        {
            "driver": "nvme-ns",
            "id": f"{drive.id}-ns{nsid}",
            "bus": drive.id,
            "drive": _node(drive, nsid),
            "nsid": nsid,
            **block,
        }
        for nsid, block in enumerate(blocks, start=1)
    ]
    return (*before, controller, *namespaces)


def _functions(count: int) -> dict[str, object]:
    """SR-IOV: every function needs a queue pair and an interrupt at least, from a flexible pool (NVMe 2.0, 8.5)."""
    return {
        "sriov_max_vfs": count,
        "max_ioqpairs": 2 + 2 * count,
        "msix_qsize": 3 + 2 * count,
        "sriov_vq_flexible": 2 * count,
        "sriov_vi_flexible": 2 * count,
    }


def _node(drive: LabDrive, nsid: int) -> str:
    return f"{drive.id}-{nsid}"


def _port(drive: LabDrive) -> str:
    return f"port-{drive.id}"


def _device(**properties: object) -> tuple[str, ...]:
    return ("-device", json.dumps(properties))


def _block(image: Path, node: str, *, driver: str = "raw", read_only: bool = False) -> tuple[str, ...]:
    # A lab is thrown away: its drives need no flush to the outer disk, and that makes them quick.
    cache = {"no-flush": True}
    file = {"driver": "file", "filename": str(image), "read-only": read_only, "discard": "unmap", "cache": cache}
    value = {"driver": driver, "node-name": node, "read-only": read_only, "cache": cache, "discard": "unmap"}
    return ("-blockdev", json.dumps({**value, "file": file}))
