"""nvdimm: byte-addressable memory that the guest sees as an NVDIMM or as virtio-pmem.

::

    guest   nd_pmem ── fsdax namespace ── ext4|xfs -o dax ── load and store
    QEMU    nvdimm | virtio-pmem-pci ── memory backend
    host    hugepages | memory | file | DAX device, mapped into the guest: no driver on the data path

What keeps its content: a DAX device or a file on a DAX file system keeps every flushed store (`pmem=on`). A file in
the page cache keeps nothing that the host has not written back, which an NVDIMM has no way to ask for and virtio-pmem
has: so that is what it becomes. Hugepages and memory live as long as QEMU does.

Sizes: the label stands at the end of the backend, and Linux wants regions in multiples of 16 MiB
(memremap_compat_align in the kernel), so the backend is the usable size plus the label.
"""

from __future__ import annotations

from typing import ClassVar

from nvlane.facts.shape import DaxDevice
from nvlane.lanes import image
from nvlane.lanes.context import PROOF_OFFSET, Context
from nvlane.lanes.drive import write_claim
from nvlane.model.claim import Claim, Locator, MemoryDeviceClaim, PmemClaim
from nvlane.model.device import Device, Frontend, MemoryNeeds, Object
from nvlane.model.size import GIB, KIB, MIB, align_up, format_size
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import CreateImage, ReserveHugepages, Step
from nvlane.spec.lane import Backing, LaneKind, PmemDevice, PmemMode
from nvlane.spec.lane import Nvdimm as NvdimmSpec

REGION_ALIGNMENT = 16 * MIB
SMALLEST_LABEL = 128 * KIB  # QEMU hw/mem/nvdimm.c, MIN_NAMESPACE_LABEL_SIZE


class Nvdimm:
    kind: ClassVar[LaneKind] = LaneKind.NVDIMM

    def refusals(self, lane: NvdimmSpec, at: Context) -> tuple[Refusal, ...]:
        device, _ = choose_device(lane, at)
        name = "nvdimm" if device is PmemDevice.NVDIMM else "virtio-pmem-pci"
        reasons = [refuse.no_device(at.index, at.qemu, name, "the nvdimm lane")]
        reasons += _size_refusals(lane, at, device)
        match lane.backing:
            case Backing.HUGEPAGES:
                pass  # all that a machine wants of a pool is added up and checked in compose
            case Backing.FILE:
                reasons += _file_refusals(lane, at)
            case Backing.DAX:
                reasons += _dax_refusals(lane, at)
            case Backing.MEMORY:
                pass
        return tuple(reason for reason in reasons if reason is not None)

    def notes(self, lane: NvdimmSpec, at: Context) -> tuple[Note, ...]:
        _, reason = choose_device(lane, at)
        lines = [reason] if reason else []
        if lane.backing in (Backing.HUGEPAGES, Backing.MEMORY):
            lines.append(f'the content of backing = "{lane.backing}" lives only as long as the machine runs')
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
        return MemoryNeeds(slots=1, hotplug=room, nvdimm=device is PmemDevice.NVDIMM)

    def steps(self, lane: NvdimmSpec, at: Context) -> tuple[Step, ...]:
        total = backend_size(lane, at)
        match lane.backing:
            case Backing.HUGEPAGES:
                # The whole need; compose takes off what is free.
                pages = total // lane.hugepage_size
                return (ReserveHugepages(node=at.node, page_size=lane.hugepage_size, pages=pages),)
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
        if lane.read_only:
            # An NVDIMM that cannot be written is one that cannot save: Linux makes its region read-only.
            properties["unarmed"] = True
        return (backend, Frontend(driver="nvdimm", id=at.id, properties=properties))

    def claims(self, lane: NvdimmSpec, at: Context) -> tuple[Claim, ...]:
        device, _ = choose_device(lane, at)
        usable = usable_size(lane, at)
        listed = usable if device is PmemDevice.NVDIMM else backend_size(lane, at)
        claims: list[Claim] = [MemoryDeviceClaim(lane=at.index, device_id=at.id, size=listed)]
        fsdax = lane.mode is PmemMode.FSDAX
        claims.append(
            PmemClaim(
                lane=at.index,
                device_id=at.id,
                size=usable,
                mode=str(lane.mode),
                filesystem=str(lane.filesystem),
                mountpoint=lane.mountpoint if lane.filesystem else "",
                # virtio-pmem needs a flush by the host after each sync: MAP_SYNC, and so libpmem, must say no.
                is_pmem=(device is PmemDevice.NVDIMM) if fsdax and lane.filesystem else None,
            )
        )
        if lane.write_proof and _can_be_proven(lane):
            claims.append(write_claim(lane.path, Locator(device_id=at.id), at, offset=PROOF_OFFSET))
        return tuple(claims)


def choose_device(lane: NvdimmSpec, at: Context) -> tuple[PmemDevice, str]:
    """The device, and the reason where it is not the obvious one."""
    cached = lane.backing is Backing.FILE and not at.facts.path(lane.path).dax
    if lane.device is PmemDevice.AUTO:
        if not cached:
            return PmemDevice.NVDIMM, ""
        return PmemDevice.VIRTIO_PMEM, (
            f"{lane.path} is in the host's page cache, which no NVDIMM can flush: the guest gets virtio-pmem, which can"
        )
    if lane.device is PmemDevice.NVDIMM and cached:
        return PmemDevice.NVDIMM, (
            f"{lane.path} is in the host's page cache: what the guest flushes is lost if the host loses power; "
            'device = "auto" takes virtio-pmem, which keeps it'
        )
    return lane.device, ""


def label_size(lane: NvdimmSpec) -> int:
    """The label as QEMU gets it: whole pages of the backing, for the backend must be made of them."""
    return (
        align_up(lane.label, lane.hugepage_size if lane.backing is Backing.HUGEPAGES else 2 * MIB) if lane.label else 0
    )


def usable_size(lane: NvdimmSpec, at: Context) -> int:
    """What the guest's region has, in bytes."""
    if lane.backing is Backing.DAX and not lane.size:
        dax = _dax(lane, at)
        return ((dax.size if dax else 0) - label_size(lane)) // REGION_ALIGNMENT * REGION_ALIGNMENT
    return align_up(lane.size, REGION_ALIGNMENT)


def backend_size(lane: NvdimmSpec, at: Context) -> int:
    """Usable size and label, in whole pages of the backing."""
    size = usable_size(lane, at) + label_size(lane)
    return align_up(size, lane.hugepage_size) if lane.backing is Backing.HUGEPAGES else size


def _can_be_proven(lane: NvdimmSpec) -> bool:
    """Whether the host can read what the guest writes: where the guest's disk is a file of the host as it is. With a
    label the guest has no disk before it has made a namespace, fsdax puts its own page map in front, and a DAX device
    cannot be read, only mapped."""
    return lane.mode is PmemMode.RAW and not lane.label and lane.backing is Backing.FILE


def _dax(lane: NvdimmSpec, at: Context) -> DaxDevice | None:
    return next((d for d in at.facts.dax_devices if d.path == lane.path), None)


def _backend(lane: NvdimmSpec, at: Context) -> Object:
    name = f"{at.id}-mem"
    properties: dict[str, str | int | bool | tuple[int, ...]] = {"size": backend_size(lane, at), "share": True}
    match lane.backing:
        case Backing.HUGEPAGES | Backing.MEMORY:
            if lane.backing is Backing.HUGEPAGES:
                # Without prealloc a short pool ends as SIGBUS in the running guest.
                properties |= {"hugetlb": True, "hugetlbsize": lane.hugepage_size, "prealloc": True}
            if at.bind >= 0:
                properties |= {"host-nodes": (at.bind,), "policy": "bind"}
            return Object(qom_type="memory-backend-memfd", id=name, properties=properties)
        case Backing.FILE | Backing.DAX:
            dax = _dax(lane, at)
            durable = lane.backing is Backing.DAX or at.facts.path(lane.path).dax
            properties["mem-path"] = lane.path
            if dax is not None:
                properties["align"] = dax.alignment
            if durable and not lane.read_only:
                properties["pmem"] = True
            if lane.read_only:
                properties["readonly"] = True
            return Object(qom_type="memory-backend-file", id=name, properties=properties)


def _size_refusals(lane: NvdimmSpec, at: Context, device: PmemDevice) -> list[Refusal]:
    reasons: list[Refusal] = []
    if lane.label and device is PmemDevice.VIRTIO_PMEM:
        reasons.append(
            at.refuse("pmem-label", "virtio-pmem has no label area", remedy="leave label out, or take a DAX backing")
        )
    if lane.read_only and device is PmemDevice.VIRTIO_PMEM:
        reasons.append(
            at.refuse(
                "pmem-read-only",
                "virtio-pmem cannot tell the guest that it is read-only: what the guest writes would vanish",
                evidence=("VIRTIO 1.3, 5.19: the device has no such feature",),
                remedy='write device = "nvdimm", which is then unarmed, or drop read_only',
            )
        )
    if lane.label and lane.backing is Backing.HUGEPAGES and lane.hugepage_size >= GIB:
        reasons.append(
            at.refuse(
                "label-page",
                "a label on 1GiB pages would take a whole page, and Linux reads all of it at each start",
                remedy='use hugepage_size = "2MiB", or leave label out',
            )
        )
    if lane.backing is Backing.HUGEPAGES and backend_size(lane, at) != usable_size(lane, at) + label_size(lane):
        reasons.append(
            at.refuse(
                "pmem-page-multiple",
                f"{at.place}.size is no multiple of its {format_size(lane.hugepage_size)} pages",
                remedy=f"use {format_size(align_up(lane.size, lane.hugepage_size))}, or smaller pages",
            )
        )
    if at.running is not None:
        reasons += _hot_refusals(at, at.running.needs, device)
    return reasons


def _hot_refusals(at: Context, room: MemoryNeeds, device: PmemDevice) -> list[Refusal]:
    """Slots, address space and NVDIMM support are what the machine was started with (`room`)."""
    anew = "add the lane to the spec and start the machine anew"
    if device is PmemDevice.NVDIMM and not room.nvdimm:
        return [
            at.refuse(
                "nvdimm-hotplug",
                "the machine was started without NVDIMMs, and QEMU cannot turn them on later",
                evidence=("the machine property nvdimm=on is set at the start",),
                remedy=anew,
            )
        ]
    wanted = at.memory - at.spec.machine.memory
    lanes = sum(lane.KIND is LaneKind.NVDIMM for lane in at.spec.lanes)
    if wanted <= room.hotplug and lanes <= room.slots:
        return []
    return [
        at.refuse(
            "pmem-hotplug",
            f"the machine has {room.slots} slots and {format_size(room.hotplug)} of address space for memory devices, "
            f"and with this lane {lanes} and {format_size(wanted)} would be needed",
            evidence=("slots and maxmem are set at the start",),
            remedy=anew,
        )
    ]


def _file_refusals(lane: NvdimmSpec, at: Context) -> list[Refusal]:
    seen = at.facts.path(lane.path)
    if seen.kind == "block":
        return [
            at.refuse(
                "backing-is-device",
                f"{lane.path} is a block device, which cannot be mapped as memory that lasts",
                remedy="name a file, or take the emulated or vhost-user lane for this device",
            )
        ]
    size = 0 if seen.kind == "file" else lane.size
    reasons = list(image.file_refusals(lane.path, size, at, f"{at.place}.path", read_only=lane.read_only))
    if seen.kind == "file" and seen.size < backend_size(lane, at):
        reasons.append(
            at.refuse(
                "backing-small",
                f"{lane.path} has {format_size(seen.size)}; {format_size(lane.size)} usable and the label need "
                f"{format_size(backend_size(lane, at))}",
                evidence=(f"stat: {seen.size} bytes",),
                remedy=f"truncate -s {backend_size(lane, at)} {lane.path}, or use a smaller size",
            )
        )
    if seen.kind == "file" and seen.format not in ("", "raw"):
        reasons.append(at.refuse("file-format", f"{lane.path} is a {seen.format} image", remedy="name a raw file"))
    return reasons


def _dax_refusals(lane: NvdimmSpec, at: Context) -> list[Refusal]:
    dax = _dax(lane, at)
    if dax is None:
        known = ", ".join(d.path for d in at.facts.dax_devices) or "none"
        return [
            at.refuse(
                "no-dax-device",
                f"{lane.path} is no DAX device",
                evidence=(f"/sys/bus/dax/devices: {known}",),
                remedy="make one: ndctl create-namespace -m devdax",
            )
        ]
    reasons: list[Refusal] = []
    if dax.driver != "device_dax":
        # Opening it gives ENXIO (drivers/dax/super.c, dax_open finds no live device).
        what = f"has the driver {dax.driver}" if dax.driver else "has no driver"
        name = dax.path.rpartition("/")[2]
        reasons.append(
            at.refuse(
                "dax-driver",
                f"{dax.path} {what}, and only device_dax lets it be mapped",
                evidence=(f"/sys/bus/dax/devices/{name}/driver: {dax.driver or 'not there'}",),
                remedy=f"daxctl reconfigure-device --mode=devdax {name}"
                if dax.driver
                else f"echo {name} > /sys/bus/dax/drivers/device_dax/bind",
            )
        )
    total = backend_size(lane, at)
    if total > dax.size or total % dax.alignment:
        reasons.append(
            at.refuse(
                "dax-size",
                f"{lane.path} has {format_size(dax.size)} in steps of {format_size(dax.alignment)}, and "
                f"{format_size(total)} are wanted (label included)",
                remedy=f"use a size that fits, a multiple of {format_size(dax.alignment)}",
            )
        )
    return reasons
