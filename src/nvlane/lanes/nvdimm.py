"""nvdimm: byte-addressable memory that the guest sees as an NVDIMM or as virtio-pmem.

::

    guest   nd_pmem ── fsdax namespace ── ext4|xfs -o dax ── load and store
               ├────── devdax namespace ── /dev/daxX.Y ───── load and store
               └────── sector namespace (BTT) ── any file system, through the page cache
    QEMU    nvdimm | virtio-pmem-pci ── memory backend
    host    hugepages | memory | file | DAX device, mapped into the guest: no driver on the data path

What keeps its content: a DAX device or a file on a DAX file system keeps every flushed store (`pmem=on`). A file in
the page cache keeps nothing that the host has not written back, which an NVDIMM has no way to ask for and virtio-pmem
has: so that is what it becomes, and an NVDIMM there is unarmed. Hugepages and memory live as long as QEMU does.

Sizes: the label stands at the end of the backend, and Linux wants regions in multiples of 16 MiB
(memremap_compat_align in the kernel), so the backend is the usable size plus the label.
"""

from __future__ import annotations

from typing import ClassVar

from nvlane.lanes.context import PROOF_OFFSET, Context
from nvlane.lanes.drive import write_claim
from nvlane.lanes.nvdimm_refusals import refusals
from nvlane.lanes.pmem import (
    backend_size,
    choose_device,
    dax_device,
    host_node,
    is_in_memory,
    is_unarmed,
    keeps,
    label_size,
    namespaces,
    usable_size,
)
from nvlane.model.claim import Claim, Keeps, Locator, MemoryDeviceClaim, PmemClaim, PmemNamespaceClaim
from nvlane.model.device import Device, Frontend, MemoryNeeds, Object
from nvlane.model.size import GIB, align_up, format_size
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import CreateImage, ReserveHugepages, Step
from nvlane.spec.lane import Backing, LaneKind, PmemDevice, PmemMode, PmemNamespace
from nvlane.spec.lane import Nvdimm as NvdimmSpec


class Nvdimm:
    kind: ClassVar[LaneKind] = LaneKind.NVDIMM

    def refusals(self, lane: NvdimmSpec, at: Context) -> tuple[Refusal, ...]:
        return refusals(lane, at)

    def notes(self, lane: NvdimmSpec, at: Context) -> tuple[Note, ...]:
        _, reason = choose_device(lane, at)
        lines = [reason] if reason else []
        if lane.backing in (Backing.HUGEPAGES, Backing.MEMORY):
            lines.append(f'the content of backing = "{lane.backing}" lives only as long as the machine runs')
        elif lane.backing is Backing.FILE and is_in_memory(at.facts.path(lane.path)):
            lines.append(f"{lane.path} is in the host's memory: it is gone when the host is switched off")
        usable = usable_size(lane, at)
        if lane.size and usable != lane.size:
            lines.append(
                f"{format_size(lane.size)} is rounded up to {format_size(usable)}: Linux has regions in steps of 16MiB"
            )
        if lane.write_proof and not _can_be_proven(lane):
            takes = 'backing = "file" without label and mode'
            lines.append(f"write_proof: the host could not read it back; that takes {takes}")
        return tuple(Note(lane=at.index, text=line) for line in lines)

    def needs(self, lane: NvdimmSpec, at: Context) -> MemoryNeeds:
        device, _ = choose_device(lane, at)
        # Memory devices are placed at 1 GiB boundaries (enforce-aligned-dimm), so each may need one more.
        room = align_up(backend_size(lane, at), GIB) + GIB
        nvdimm = device is PmemDevice.NVDIMM
        armed = nvdimm and not is_unarmed(lane, at)
        durable = keeps(lane, at) is Keeps.FLUSHED_STORES if armed else None
        return MemoryNeeds(slots=1, hotplug=room, nvdimm=nvdimm, durable=durable)

    def steps(self, lane: NvdimmSpec, at: Context) -> tuple[Step, ...]:
        total = backend_size(lane, at)
        match lane.backing:
            case Backing.HUGEPAGES:
                # The whole need; compose takes off what is free.
                pages = total // lane.hugepage_size
                node, _ = host_node(lane, at)
                return (ReserveHugepages(node=node, page_size=lane.hugepage_size, pages=pages),)
            case Backing.FILE if at.facts.path(lane.path).kind == "absent":
                return (CreateImage(path=lane.path, format="raw", size=total),)
            case _:
                pass
        return ()

    def devices(self, lane: NvdimmSpec, at: Context) -> tuple[Device, ...]:
        device, _ = choose_device(lane, at)
        backend = _backend(lane, at)
        properties: dict[str, object] = {"memdev": backend.id}
        if device is PmemDevice.VIRTIO_PMEM:
            return (backend, Frontend(driver="virtio-pmem-pci", id=at.id, properties=properties, slot=True))
        if lane.label:
            properties["label-size"] = label_size(lane)
        if lane.guest_node is not None:
            properties["node"] = lane.guest_node
        if is_unarmed(lane, at):
            # An NVDIMM that cannot be written is one that cannot save, and so is one that cannot keep what is
            # flushed: Linux makes its region read-only.
            properties["unarmed"] = True
        return (backend, Frontend(driver="nvdimm", id=at.id, properties=properties))

    def claims(self, lane: NvdimmSpec, at: Context) -> tuple[Claim, ...]:
        device, _ = choose_device(lane, at)
        usable = usable_size(lane, at)
        listed = usable if device is PmemDevice.NVDIMM else backend_size(lane, at)
        claims: list[Claim] = [MemoryDeviceClaim(lane=at.index, device_id=at.id, size=listed)]
        claims.append(
            PmemClaim(
                lane=at.index,
                device_id=at.id,
                size=usable,
                read_only=is_unarmed(lane, at),
                node=lane.guest_node,
                path=lane.path,
                keeps=keeps(lane, at),
                namespaces=tuple(_namespace_claim(one, lane, device) for one in namespaces(lane)),
            )
        )
        if lane.write_proof and _can_be_proven(lane):
            claims.append(write_claim(lane.path, Locator(device_id=at.id), at, offset=PROOF_OFFSET))
        return tuple(claims)


def _namespace_claim(wanted: PmemNamespace, lane: NvdimmSpec, device: PmemDevice) -> PmemNamespaceClaim:
    """A nameless raw namespace claims no mode: it is what the guest's own administrator makes of it."""
    left_alone = wanted.mode is PmemMode.RAW and not wanted.name
    # The kernel has a page map of virtio-pmem as it is, of an NVDIMM's region only by a namespace that makes room for
    # one (drivers/nvdimm/virtio_pmem.c and drivers/acpi/nfit/core.c: who sets ND_REGION_PAGEMAP).
    mapped = wanted.mode in (PmemMode.FSDAX, PmemMode.DEVDAX)
    dax = mapped or device is PmemDevice.VIRTIO_PMEM
    # virtio-pmem needs a flush by the host after each sync: MAP_SYNC, and so libpmem, must say no.
    is_pmem = device is PmemDevice.NVDIMM
    asked = bool(wanted.filesystem and wanted.mode is not PmemMode.SECTOR) or wanted.mode is PmemMode.DEVDAX
    return PmemNamespaceClaim(
        name=wanted.name,
        size=wanted.size,
        mode="" if left_alone else str(wanted.mode),
        sector_size=wanted.sector_size if wanted.mode is PmemMode.SECTOR else 0,
        align=wanted.align,
        dax=None if left_alone and not wanted.filesystem else dax,
        filesystem=str(wanted.filesystem),
        mountpoint=wanted.mountpoint if wanted.filesystem else "",
        is_pmem=is_pmem if asked else None,
        write=lane.write_proof,
    )


def _can_be_proven(lane: NvdimmSpec) -> bool:
    """Whether the host can read what the guest writes: where the guest's disk is a file of the host as it is. With a
    label the guest has no disk before it has made a namespace, fsdax puts its own page map in front, and a DAX device
    cannot be read, only mapped."""
    return lane.mode is PmemMode.RAW and not lane.label and lane.backing is Backing.FILE


def _backend(lane: NvdimmSpec, at: Context) -> Object:
    name = f"{at.id}-mem"
    properties: dict[str, str | int | bool | tuple[int, ...]] = {"size": backend_size(lane, at), "share": True}
    match lane.backing:
        case Backing.HUGEPAGES | Backing.MEMORY:
            if lane.backing is Backing.HUGEPAGES:
                # Without prealloc a short pool ends as SIGBUS in the running guest.
                properties |= {"hugetlb": True, "hugetlbsize": lane.hugepage_size, "prealloc": True}
            _, bind = host_node(lane, at)
            if bind >= 0:
                properties |= {"host-nodes": (bind,), "policy": "bind"}
            return Object(qom_type="memory-backend-memfd", id=name, properties=properties)
        case Backing.FILE | Backing.DAX:
            dax = dax_device(lane, at)
            durable = lane.backing is Backing.DAX or at.facts.path(lane.path).dax
            properties["mem-path"] = lane.path
            if dax is not None:
                properties["align"] = dax.alignment
            if durable and not lane.read_only:
                properties["pmem"] = True
            if lane.read_only:
                properties["readonly"] = True
            return Object(qom_type="memory-backend-file", id=name, properties=properties)
