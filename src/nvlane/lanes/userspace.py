"""userspace: QEMU's own NVMe driver on VFIO, behind any block front end.

::

    guest   virtio-blk | virtio-scsi | nvme | sata | usb driver
    QEMU    front end (iothread) ── block graph ── driver=nvme: queues and doorbells in QEMU
    host    vfio-pci ── IOMMU group
    drive   one namespace of the controller

It keeps QEMU's block layer (mirror, backup, snapshot, throttle) and leaves the host's block layer out. It costs the
whole controller, even for one namespace, and QEMU drives it with one I/O queue of 128 entries.
"""

from __future__ import annotations

from typing import ClassVar

from nvlane.facts.locate import NotLocated, find_drive
from nvlane.lanes import drive, frontend
from nvlane.lanes.context import Context
from nvlane.model.claim import Claim
from nvlane.model.device import BlockNode, Device, MemoryNeeds
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import Step
from nvlane.spec.lane import LaneKind
from nvlane.spec.lane import Userspace as UserspaceSpec


class Userspace:
    kind: ClassVar[LaneKind] = LaneKind.USERSPACE

    def refusals(self, lane: UserspaceSpec, at: Context) -> tuple[Refusal, ...]:
        reasons = [refuse.no_block_driver(at.index, at.qemu, "nvme", "the userspace lane")]
        reasons += drive.refusals(lane.drive, at)
        reasons += drive.namespace_refusals(lane.drive, lane.namespace, at)
        reasons += drive.metadata_refusals(lane.drive, lane.namespace, at)
        found = find_drive(at.facts, lane.drive)
        block_size = 0
        if not isinstance(found, NotLocated):
            ns = drive.namespace(found.drive, lane.namespace)
            block_size = ns.block_size if ns else 0
        reasons += frontend.refusals(lane.frontend, block_size, at, read_only=lane.read_only)
        return tuple(reason for reason in reasons if reason is not None)

    def notes(self, lane: UserspaceSpec, at: Context) -> tuple[Note, ...]:
        lines = list(drive.notes(lane.drive, at, write_proof=lane.write_proof))
        others = [n for n in drive.locate(lane.drive, at).drive.namespaces if n.nsid != lane.namespace]
        if others:
            names = ", ".join(str(n.nsid) for n in others)
            lines.append(Note(lane=at.index, text=f"the whole controller leaves the host, with its namespaces {names}"))
        if lane.read_only and not frontend.shows_read_only(lane.frontend):
            lines.append(Note(lane=at.index, text=frontend.NVME_READ_ONLY))
        return tuple(lines)

    def needs(self, lane: UserspaceSpec, at: Context) -> MemoryNeeds:  # noqa: ARG002 - the same for every drive
        return MemoryNeeds(pinned=True)

    def steps(self, lane: UserspaceSpec, at: Context) -> tuple[Step, ...]:
        return drive.bind_steps(lane.drive, at)

    def devices(self, lane: UserspaceSpec, at: Context) -> tuple[Device, ...]:
        found = drive.locate(lane.drive, at)
        options: dict[str, object] = {
            "device": str(found.function.address), "namespace": lane.namespace, "discard": "unmap",
        }  # fmt: skip
        if lane.read_only:
            options["read-only"] = True
        node = BlockNode(driver="nvme", node_name=f"{at.id}-drive", options=options)
        ns = drive.namespace(found.drive, lane.namespace)
        disk = frontend.Disk(
            node=node.node_name,
            serial=found.drive.serial or at.id,
            block_size=ns.block_size if ns else 0,
            iothread=lane.iothread,
        )
        return (node, *frontend.devices(lane.frontend, disk, at))

    def claims(self, lane: UserspaceSpec, at: Context) -> tuple[Claim, ...]:
        found = drive.locate(lane.drive, at)
        ns = drive.namespace(found.drive, lane.namespace)
        if ns is None:
            return ()
        locator = frontend.locator(lane.frontend, at)
        visible = lane.read_only and frontend.shows_read_only(lane.frontend)
        return drive.block_claims(found, ns, locator, at, write_proof=lane.write_proof, read_only=visible)
