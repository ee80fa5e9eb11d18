"""passthrough: VFIO hands a physical NVMe controller, or one virtual function of it, to the guest.

::

    guest   nvme driver ── doorbells, queues ──┐
    QEMU    vfio-pci device (set-up only)      │  mapped BARs, interrupts by irqfd, DMA through the IOMMU
    host    vfio-pci ── IOMMU group ───────────┘
    drive   the controller itself

The fastest lane: nothing of the host is on the data path. It costs QEMU's block layer (no snapshot, mirror, backup or
throttle), live migration (but for a drive with a variant driver), and all guest memory is locked.
"""

from __future__ import annotations

from typing import ClassVar

from nvlane.lanes import drive
from nvlane.lanes.context import Context
from nvlane.model.claim import Claim, ControllerClaim, Locator
from nvlane.model.device import Device, Frontend, MemoryNeeds, Object
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import Step
from nvlane.spec.lane import LaneKind, VfioBackend
from nvlane.spec.lane import Passthrough as PassthroughSpec


class Passthrough:
    kind: ClassVar[LaneKind] = LaneKind.PASSTHROUGH

    def refusals(self, lane: PassthroughSpec, at: Context) -> tuple[Refusal, ...]:
        reasons = [refuse.no_device(at.index, at.qemu, "vfio-pci", "the passthrough lane")]
        reasons += drive.refusals(lane.drive, at)
        if lane.iommu is VfioBackend.IOMMUFD and not _iommufd_works(at):
            reasons.append(
                at.refuse(
                    "no-iommufd",
                    "iommufd was asked for and is not to be had here",
                    evidence=(
                        f"kernel: {'has' if _kernel_cdev(at) else 'lacks'} CONFIG_IOMMUFD and VFIO_DEVICE_CDEV",
                        f"QEMU: {'has' if 'iommufd' in at.qemu.objects else 'lacks'} the iommufd object",
                    ),
                    remedy='leave lane.iommu at "auto", which takes the VFIO container',
                )
            )
        return tuple(reason for reason in reasons if reason is not None)

    def notes(self, lane: PassthroughSpec, at: Context) -> tuple[Note, ...]:
        return drive.notes(lane.drive, at, write_proof=lane.write_proof)

    def needs(self, lane: PassthroughSpec, at: Context) -> MemoryNeeds:  # noqa: ARG002 - the same for every drive
        return MemoryNeeds(pinned=True)

    def steps(self, lane: PassthroughSpec, at: Context) -> tuple[Step, ...]:
        return drive.bind_steps(lane.drive, at, type1=not self._iommufd(lane, at))

    def devices(self, lane: PassthroughSpec, at: Context) -> tuple[Device, ...]:
        address = drive.locate(lane.drive, at).function.address
        properties: dict[str, object] = {"host": str(address)}
        if not self._iommufd(lane, at):
            return (Frontend(driver="vfio-pci", id=at.id, properties=properties, slot=True, host=address),)
        iommufd = Object(qom_type="iommufd", id=f"{at.id}-iommufd")
        properties["iommufd"] = iommufd.id
        return (iommufd, Frontend(driver="vfio-pci", id=at.id, properties=properties, slot=True, host=address))

    def claims(self, lane: PassthroughSpec, at: Context) -> tuple[Claim, ...]:
        found = drive.locate(lane.drive, at)
        claims: list[Claim] = [
            ControllerClaim(
                lane=at.index,
                device_id=at.id,
                serial=found.drive.serial,
                model=found.drive.model,
                vendor=found.function.vendor,
                device=found.function.device,
                namespaces=len(found.drive.namespaces) or None,
            )
        ]
        for position, ns in enumerate(found.drive.namespaces):
            locator = Locator(device_id=at.id, nsid=ns.nsid)
            proof = lane.write_proof and position == 0
            claims += drive.block_claims(found, ns, locator, at, write_proof=proof)
        return tuple(claims)

    @staticmethod
    def _iommufd(lane: PassthroughSpec, at: Context) -> bool:
        return lane.iommu is not VfioBackend.CONTAINER and _iommufd_works(at)


def _kernel_cdev(at: Context) -> bool:
    return at.facts.vfio is not None and at.facts.vfio.cdev


def _iommufd_works(at: Context) -> bool:
    return _kernel_cdev(at) and "iommufd" in at.qemu.objects and "iommufd" in at.qemu.devices.get("vfio-pci", ())
