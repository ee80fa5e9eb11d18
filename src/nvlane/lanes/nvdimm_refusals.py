"""Why an NVDIMM lane is refused."""

from __future__ import annotations

from nvlane.lanes import image
from nvlane.lanes.context import Context
from nvlane.lanes.pmem import (
    backend_size,
    choose_device,
    dax_device,
    is_made_use_of,
    is_unarmed,
    keeps,
    label_size,
    namespaces,
    usable_size,
)
from nvlane.model.claim import Keeps
from nvlane.model.device import MemoryNeeds
from nvlane.model.size import GIB, align_up, format_size
from nvlane.plan import refuse
from nvlane.plan.plan import Refusal
from nvlane.spec.lane import Backing, LaneKind, Nvdimm, PmemDevice, PmemMode


def refusals(lane: Nvdimm, at: Context) -> tuple[Refusal, ...]:
    device, _ = choose_device(lane, at)
    name = "nvdimm" if device is PmemDevice.NVDIMM else "virtio-pmem-pci"
    reasons = [refuse.no_device(at.index, at.qemu, name, "the nvdimm lane")]
    reasons += _device_refusals(lane, at, device)
    reasons += _size_refusals(lane, at, device)
    match lane.backing:
        case Backing.HUGEPAGES | Backing.MEMORY:
            # All that a machine wants of a pool is added up and checked in compose.
            reasons += _node_refusals(lane, at)
        case Backing.FILE:
            reasons += _file_refusals(lane, at)
        case Backing.DAX:
            reasons += _dax_refusals(lane, at)
    return tuple(reason for reason in reasons if reason is not None)


def _device_refusals(lane: Nvdimm, at: Context, device: PmemDevice) -> list[Refusal]:
    """What the device that it becomes cannot be or do."""
    if device is PmemDevice.VIRTIO_PMEM:
        return _virtio_refusals(lane, at)
    if is_unarmed(lane, at) and not lane.read_only and is_made_use_of(lane):
        return [
            at.refuse(
                "pmem-unarmed",
                f"{lane.path} is in the host's page cache and cannot keep what a guest flushes, so the NVDIMM is "
                "unarmed: Linux only reads it, and the spec wants it written",
                evidence=(f"{at.facts.path(lane.path).filesystem or 'its file system'} is not mounted with DAX",),
                remedy='device = "auto" takes virtio-pmem, which keeps what is synced; a file on a file system mounted '
                "with -o dax keeps what is flushed; armed = true lets the guest write and trust it all the same",
            )
        ]
    return []


def _virtio_refusals(lane: Nvdimm, at: Context) -> list[Refusal]:
    reasons: list[Refusal] = []
    if lane.label:
        reasons.append(
            at.refuse("pmem-label", "virtio-pmem has no label area", remedy="leave label out, or take a DAX backing")
        )
    if lane.guest_node is not None:
        reasons.append(
            at.refuse(
                "pmem-guest-node",
                "virtio-pmem belongs to no NUMA node of the guest",
                evidence=("QEMU's virtio-pmem-pci has no property 'node'",),
                remedy="leave guest_node out, or take an NVDIMM: a DAX device, or a file on a DAX file system",
            )
        )
    if any(one.mode is PmemMode.DEVDAX for one in namespaces(lane)):
        reasons.append(
            at.refuse(
                "pmem-devdax",
                "virtio-pmem needs a flush by the host, and a devdax namespace has no fsync to ask for one with",
                remedy='write mode = "fsdax", whose files have it, or take an NVDIMM: a DAX device, or a file on a DAX '
                "file system",
            )
        )
    if lane.read_only:
        reasons.append(
            at.refuse(
                "pmem-read-only",
                "virtio-pmem cannot tell the guest that it is read-only: what the guest writes would vanish",
                evidence=("VIRTIO 1.3, 5.19: the device has no such feature",),
                remedy='write device = "nvdimm", which is then unarmed, or drop read_only',
            )
        )
    return reasons


def _node_refusals(lane: Nvdimm, at: Context) -> list[Refusal]:
    known = [node.node for node in at.facts.nodes]
    if lane.node is None or not known or lane.node in known:
        return []
    return [
        at.refuse(
            "no-node",
            f"{at.place}.node is {lane.node}, and this host has the NUMA nodes {', '.join(map(str, known))}",
            remedy="name one of those, or leave it out",
        )
    ]


def _size_refusals(lane: Nvdimm, at: Context, device: PmemDevice) -> list[Refusal]:
    reasons: list[Refusal] = []
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
    reasons += _alignment_refusals(lane, at)
    if at.running is not None:
        reasons += _hot_refusals(at, at.running.needs, device)
    return reasons


def _alignment_refusals(lane: Nvdimm, at: Context) -> list[Refusal]:
    """The page map stands in front, and the data starts at the next multiple of the alignment: on 1 GiB pages the
    first GiB is gone (drivers/nvdimm/pfn_devs.c, nd_pfn_init). A mapping of a device must begin at such a multiple
    too, and libpmem sees to that for 2 GiB and more (PMDK, src/common/mmap.c, util_map_hint_align)."""
    reasons: list[Refusal] = []
    for one in namespaces(lane):
        size = one.size or usable_size(lane, at)
        least = (3 if one.mode is PmemMode.DEVDAX else 2) * one.align
        if one.align >= GIB and size < least:
            reasons.append(
                at.refuse(
                    "pmem-alignment",
                    f"{one.name or at.place}: {format_size(size)} are too few for pages of {format_size(one.align)}: "
                    "the page map takes the first"
                    + (", and libpmem aligns mappings on them from two on" if one.mode is PmemMode.DEVDAX else ""),
                    remedy=f'use {format_size(least)} or more, or align = "2MiB"',
                )
            )
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


def _file_refusals(lane: Nvdimm, at: Context) -> list[Refusal]:
    seen = at.facts.path(lane.path)
    if seen.kind == "block":
        return [
            at.refuse(
                "backing-is-device",
                f"{lane.path} is a block device, which cannot be mapped as memory that lasts",
                remedy=_instead_of_a_device(lane.path),
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
    if not lane.read_only:
        # QEMU locks no memory file: a second machine would write into the first one's memory.
        reasons += refuse.uses(at.index, f"{at.place}.path", seen.uses)
    reasons += _libpmem_refusals(lane, at)
    if seen.kind == "file" and seen.format not in ("", "raw"):
        reasons.append(at.refuse("file-format", f"{lane.path} is a {seen.format} image", remedy="name a raw file"))
    return reasons


def _libpmem_refusals(lane: Nvdimm, at: Context) -> list[Refusal]:
    if at.qemu.pmem or keeps(lane, at) is not Keeps.FLUSHED_STORES:
        return []
    return [
        at.refuse(
            "no-libpmem",
            f"{lane.path} keeps what is flushed, and this QEMU cannot promise it: it was built without libpmem",
            evidence=(f"{at.qemu.path}: pmem=on of memory-backend-file is refused",),
            remedy="take a QEMU with libpmem (Debian's, or configure --enable-libpmem), or write read_only = true",
        )
    ]


def _instead_of_a_device(path: str) -> str:
    """A pmem disk can be had as what its owner meant; any other disk has its own lanes."""
    if path.startswith("/dev/pmem"):
        return (
            f"mkfs.xfs {path}, mount it with -o dax and name a file there; or give all of it away as a DAX device: "
            'ndctl create-namespace --force --mode=devdax --reconfig=NAMESPACE, and backing = "dax"'
        )
    return "name a file, or take the emulated or vhost-user lane for this device"


def _dax_refusals(lane: Nvdimm, at: Context) -> list[Refusal]:
    dax = dax_device(lane, at)
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
    reasons = list(refuse.uses(at.index, f"{at.place}.path {dax.path}", at.facts.path(lane.path).uses))
    reasons += _libpmem_refusals(lane, at)
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
