"""Front ends for a node of QEMU's block graph: what the guest sees of it, for every lane that keeps the block layer."""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.lanes.context import Context
from nvlane.model.claim import Locator
from nvlane.model.device import Device, Frontend, Object
from nvlane.plan import refuse
from nvlane.plan.plan import Refusal
from nvlane.spec.lane import BlockFrontend

#: Device types that each front end needs of QEMU.
DEVICES = {
    BlockFrontend.VIRTIO_BLK: ("virtio-blk-pci",),
    BlockFrontend.VIRTIO_SCSI: ("virtio-scsi-pci", "scsi-hd"),
    BlockFrontend.NVME: ("nvme",),
    BlockFrontend.SATA: ("ich9-ahci", "ide-hd"),
    BlockFrontend.USB: ("qemu-xhci", "usb-storage"),
}
#: Front ends that can be served from an iothread (QEMU's nvme device has no such property up to 10.0).
THREADED = frozenset({BlockFrontend.VIRTIO_BLK, BlockFrontend.VIRTIO_SCSI})
#: QEMU's nvme-ns never sets the write-protected bit of Identify Namespace (NSATTR; hw/nvme/ns.c up to 10.0).
NVME_READ_ONLY = "QEMU's NVMe controller does not tell the guest that it is read-only: a write fails as an I/O error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A block node to show to the guest. `serial` is cut to the 20 characters that virtio-blk and NVMe carry."""

    node: str
    serial: str
    block_size: int
    iothread: bool = True


def refusals(frontend: BlockFrontend, block_size: int, at: Context, *, read_only: bool = False) -> tuple[Refusal, ...]:
    """Device types that this QEMU lacks, and block sizes or write protection that a front end cannot show."""
    reasons = [refuse.no_device(at.index, at.qemu, name, f"the front end {frontend}") for name in DEVICES[frontend]]
    if frontend is BlockFrontend.SATA and block_size not in (0, 512):
        reasons.append(
            at.refuse(
                "frontend-block-size",
                f"the drive has {block_size}-byte blocks and QEMU's SATA disk can show only 512",
                evidence=("QEMU hw/ide/ide-dev.c: logical_block_size must be 512",),
                remedy="take virtio-blk, virtio-scsi or nvme",
            )
        )
    if frontend is BlockFrontend.SATA and read_only:
        reasons.append(
            at.refuse(
                "frontend-read-only",
                "QEMU's SATA disk cannot be read-only",
                evidence=("QEMU hw/ide/ide-dev.c: only an ide-cd may be",),
                remedy="take virtio-blk, virtio-scsi, nvme or usb",
            )
        )
    if at.hot and frontend is BlockFrontend.SATA:
        reasons.append(
            at.refuse(
                "frontend-hotplug",
                "QEMU's AHCI ports cannot be hot-plugged",
                remedy="take virtio-blk, virtio-scsi, nvme or usb, or add it to the spec and start the machine anew",
            )
        )
    return tuple(reason for reason in reasons if reason is not None)


def devices(frontend: BlockFrontend, disk: Disk, at: Context) -> tuple[Device, ...]:
    """The front end's devices, the disk last."""
    thread = f"{at.id}-io"
    threaded = disk.iothread and frontend in THREADED
    before: tuple[Device, ...] = (Object(qom_type="iothread", id=thread),) if threaded else ()
    io: dict[str, object] = {"iothread": thread} if threaded else {}
    serial = disk.serial[:20]
    blocks: dict[str, object] = (
        {"logical_block_size": disk.block_size, "physical_block_size": max(disk.block_size, 512)}
        if disk.block_size not in (0, 512)
        else {}
    )
    drive: dict[str, object] = {"drive": disk.node, **({"serial": serial} if serial else {}), **blocks}
    match frontend:
        case BlockFrontend.VIRTIO_BLK:
            properties = {**drive, **io, "num-queues": at.vcpus}
            return (*before, Frontend(driver="virtio-blk-pci", id=at.id, properties=properties, slot=True))
        case BlockFrontend.VIRTIO_SCSI:
            controller = Frontend(
                driver="virtio-scsi-pci", id=at.id, properties={**io, "num_queues": at.vcpus}, slot=True
            )
            lun = {**drive, "bus": f"{at.id}.0", "scsi-id": 0, "lun": 0}
            return (*before, controller, Frontend(driver="scsi-hd", id=f"{at.id}-disk", properties=lun))
        case BlockFrontend.NVME:
            return (Frontend(driver="nvme", id=at.id, properties={**drive, **_doorbells(at)}, slot=True),)
        case BlockFrontend.SATA:
            controller = Frontend(driver="ich9-ahci", id=at.id)
            return (
                controller,
                Frontend(driver="ide-hd", id=f"{at.id}-disk", properties={**drive, "bus": f"{at.id}.0"}),
            )
        case BlockFrontend.USB:
            controller = Frontend(driver="qemu-xhci", id=at.id, slot=True)
            properties = {**drive, "bus": f"{at.id}.0"}
            return (controller, Frontend(driver="usb-storage", id=f"{at.id}-disk", properties=properties))


def _doorbells(at: Context) -> dict[str, object]:
    queues: dict[str, object] = {"max_ioqpairs": at.vcpus, "msix_qsize": at.vcpus + 1}
    # Off by default up to QEMU 10.0, though every doorbell then waits for the main loop.
    return {**queues, "ioeventfd": True} if "ioeventfd" in at.qemu.devices.get("nvme", ()) else queues


def shows_read_only(frontend: BlockFrontend) -> bool:
    """Whether the guest can see that a disk is read-only; see NVME_READ_ONLY."""
    return frontend is not BlockFrontend.NVME


def locator(frontend: BlockFrontend, at: Context) -> Locator:
    """How the guest finds the disk: by the PCI function of its controller; one disk a controller."""
    match frontend:
        case BlockFrontend.NVME:
            return Locator(device_id=at.id, nsid=1)
        case BlockFrontend.VIRTIO_SCSI:
            return Locator(device_id=at.id, lun=0)
        case _:
            return Locator(device_id=at.id)
