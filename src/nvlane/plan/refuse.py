"""Refusals: one function a reason, each with what was read and what would make it safe.

They return None (or nothing) when there is no reason. Order in a plan is the order of calls, so plans are stable.
"""

from __future__ import annotations

from nvlane.facts.shape import Drive, Facts, PciFunction, Qemu, Use, UseKind
from nvlane.model.size import format_size
from nvlane.plan.plan import Refusal
from nvlane.plan.pool import free_pages

#: Drivers that hold a function for userspace or for nobody: a function on one of these is idle for the host.
IDLE_DRIVERS = frozenset({"", "vfio-pci", "pci-stub", "uio_pci_generic"})

_REMEDIES = {
    UseKind.ROOT: "this drive runs the host: take another one",
    UseKind.MOUNT: "unmount it: umount /dev/{device}",
    UseKind.SWAP: "turn the swap off: swapoff /dev/{device}",
    UseKind.LVM: "deactivate its volume group: vgchange -an VG",
    UseKind.MD: "stop the array: mdadm --stop /dev/mdN",
    UseKind.DM: "remove the mapping: dmsetup remove NAME",
    UseKind.CRYPT: "close the volume: cryptsetup close NAME",
    UseKind.MULTIPATH: "flush the map: multipath -f NAME",
    UseKind.BCACHE: "detach and stop it: echo 1 > /sys/block/bcacheN/bcache/stop",
    UseKind.BTRFS: "unmount the file system that it is part of",
    UseKind.ZFS: "export the pool: zpool export POOL",
    UseKind.LOOP: "detach the loop device: losetup -d /dev/loopN",
    UseKind.HOLDER: "release what holds it",
    UseKind.OPEN: "end the process that has it open",
    UseKind.EXCLUSIVE: "find what in the kernel holds it (nvmet, target, dm) and release it",
}

_USE_CODES = {kind: f"drive-{kind.name.lower()}" for kind in UseKind}


def uses(lane: int | None, what: str, found: tuple[Use, ...]) -> tuple[Refusal, ...]:
    """One refusal for each use of a drive or block device."""
    return tuple(
        Refusal(
            code=_USE_CODES[use.kind],
            lane=lane,
            reason=f"{what} is in use: {use.device} is a {use.kind.value}"
            if use.kind is not UseKind.OPEN
            else f"{what} is in use: {use.device} has an open file handle",
            evidence=(use.evidence,),
            remedy=_REMEDIES[use.kind].format(device=use.device),
        )
        for use in found
    )


def no_iommu(lane: int | None, facts: Facts, function: PciFunction) -> Refusal | None:
    """VFIO needs an IOMMU group; without one a device could write anywhere in memory."""
    if function.iommu_group is not None:
        return None
    evidence = f"{function.address.sysfs}/iommu_group does not exist"
    return Refusal(
        code="no-iommu",
        lane=lane,
        reason=f"{function.address} is in no IOMMU group, so VFIO cannot keep its DMA inside the guest",
        evidence=(evidence, f"IOMMU of this host: {facts.iommu or 'none'}"),
        remedy="turn on VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by default)",
    )


def no_vfio(lane: int | None, facts: Facts) -> Refusal | None:
    vfio = facts.vfio
    if vfio is not None and vfio.module_available:
        return None
    return Refusal(
        code="no-vfio",
        lane=lane,
        reason=f"the kernel {facts.kernel} has no vfio-pci",
        evidence=("vfio-pci is neither built in nor found by modprobe",),
        remedy="install the modules of this kernel, or boot one that has CONFIG_VFIO_PCI",
    )


def busy_sibling(lane: int | None, sibling: PciFunction, drive: Drive | None) -> tuple[Refusal, ...]:
    """Another function of the IOMMU group that the host uses: a group goes to VFIO whole or not at all."""
    if sibling.driver in IDLE_DRIVERS or sibling.is_bridge:
        return ()
    where = f"{sibling.address} ({sibling.driver}) shares IOMMU group {sibling.iommu_group}"
    remedy = "move the drive to a slot with a group of its own, or free the sibling too"
    if sibling.is_nvme and drive is not None:
        if not drive.uses:
            return ()
        serial = f", serial {drive.serial}" if drive.serial else ""
        return tuple(
            Refusal(
                code="sibling-in-use",
                lane=lane,
                reason=f"{where}{serial} and is in use: {use.device} is a {use.kind.value}",
                evidence=(use.evidence,),
                remedy=f"{_REMEDIES[use.kind].format(device=use.device)}; or {remedy}",
            )
            for use in drive.uses
        )
    interfaces = ", ".join(sibling.network_interfaces)
    return (
        Refusal(
            code="sibling-foreign",
            lane=lane,
            reason=f"{where}; nvlane cannot know whether it is idle"
            + (f" (network {interfaces})" if interfaces else ""),
            evidence=(f"{sibling.address.sysfs}/driver is {sibling.driver}",),
            remedy=f"{remedy}; a sibling that you bound to vfio-pci yourself is no hindrance",
        ),
    )


def functions_enabled(lane: int | None, function: PciFunction, instead: str) -> Refusal | None:
    """Virtual functions live by their physical one: whoever has them would lose them, and undo would not bring them
    back. `instead` is what else could be done."""
    if not function.sriov_enabled:
        return None
    return Refusal(
        code="vfs-enabled",
        lane=lane,
        reason=f"{function.address} would leave its driver, and its {function.sriov_enabled} virtual functions with it",
        evidence=(f"{function.address.sysfs}/sriov_numvfs is {function.sriov_enabled}",),
        remedy=f"{instead}, or disable them: echo 0 > {function.address.sysfs}/sriov_numvfs",
    )


def same_drive(lane: int, other: str, text: str, function: PciFunction) -> Refusal:
    """Two lanes whose words differ and mean one drive, as an address and a serial may."""
    return Refusal(
        code="drive-twice",
        lane=lane,
        reason=f"'{text}' is {function.address}, which {other} takes already",
        evidence=(f"both mean {function.address}",),
        remedy="name another drive in one of them",
    )


def no_device(lane: int | None, qemu: Qemu, device: str, why: str) -> Refusal | None:
    """A device type that this QEMU binary was built without."""
    if qemu.error:
        return Refusal(
            code="no-qemu",
            lane=None,  # it stops all lanes alike, and is said once
            reason=f"QEMU cannot be used: {qemu.error}",
            evidence=(qemu.path,),
            remedy="install it (Debian: qemu-system-x86), or name the binary in machine.qemu",
        )
    if device in qemu.devices:
        return None
    return Refusal(
        code="qemu-lacks-device",
        lane=lane,
        reason=f"this QEMU was built without the device '{device}', which {why} needs",
        evidence=(f"{qemu.path} {qemu.version}: qom-list-types does not name it",),
        remedy="use a QEMU that has it (Debian's has), or another lane or front end",
    )


def no_property(lane: int, qemu: Qemu, device: str, name: str, why: str) -> Refusal | None:
    """A property that this QEMU's device does not have."""
    if qemu.error or device not in qemu.devices or name in qemu.devices[device]:
        return None
    return Refusal(
        code="qemu-lacks-property",
        lane=lane,
        reason=f"this QEMU's '{device}' has no '{name}', which {why} needs",
        evidence=(f"{qemu.path} {qemu.version}: device-list-properties does not name it",),
        remedy="use a newer QEMU, or leave that out",
    )


def no_block_driver(lane: int, qemu: Qemu, driver: str, why: str) -> Refusal | None:
    if qemu.error or driver in qemu.block_drivers:
        return None
    return Refusal(
        code="qemu-lacks-driver",
        lane=lane,
        reason=f"this QEMU was built without the block driver '{driver}', which {why} needs",
        evidence=(f"{qemu.path} {qemu.version}: query-qmp-schema does not name it",),
        remedy="use a QEMU that has it, or another lane",
    )


def hugepages(lane: int | None, facts: Facts, *, node: int, page_size: int, pages: int, why: str) -> Refusal | None:
    """Not enough memory for hugepages on a node. Fragmentation is seen only when the kernel is asked for them."""
    pool = next((p for p in facts.hugepages if p.node == node and p.page_size == page_size), None)
    size = format_size(page_size)
    if pool is None:
        have = ", ".join(f"{format_size(p.page_size)} on node {p.node}" for p in facts.hugepages) or "none"
        return Refusal(
            code="hugepage-size",
            lane=lane,
            reason=f"{why} wants {size} pages on node {node}, and the kernel has no such pool",
            evidence=(f"/sys/devices/system/node: {have}",),
            remedy="choose a page size that the processor has (1GiB pages need the pdpe1gb flag)",
        )
    free = free_pages(facts, node, page_size)
    missing = pages - free
    room = next((n.memory_free for n in facts.nodes if n.node == node), facts.memory_total)
    if missing <= 0 or missing * page_size <= room:
        return None
    return Refusal(
        code="hugepages-short",
        lane=lane,
        reason=f"{why} wants {pages} pages of {size} on node {node}: {free} are free and the node's free memory "
        f"({format_size(room)}) cannot make the other {missing}",
        evidence=(f"node {node}: {pool.total} pages of {size}, {pool.free} free, {format_size(room)} of memory free",),
        remedy="use less memory, free some on that node, or reserve pages at boot (hugepagesz=, hugepages=)",
    )


def no_module(lane: int | None, facts: Facts, module: str, why: str) -> Refusal | None:
    """A kernel module that is neither there nor to be had."""
    name = module.replace("-", "_")
    if name in facts.modules or name in facts.loadable:
        return None
    return Refusal(
        code="no-module",
        lane=lane,
        reason=f"the kernel {facts.kernel} has no {module}, which {why} needs",
        evidence=(f"{module} is neither built in nor found by modprobe",),
        remedy="install the modules of this kernel (Debian: linux-image-amd64, not the cloud kernel), or boot another",
    )


def memlock(lane: int, facts: Facts, needed: int) -> Refusal | None:
    """VFIO locks all guest memory; the limit must allow it and must be known before QEMU fails half-way."""
    limit = facts.limits.memlock
    if limit is None or limit >= needed or facts.limits.can_raise:
        return None
    return Refusal(
        code="memlock",
        lane=lane,
        reason=f"VFIO locks all guest memory: {format_size(needed)} are needed and the limit is {format_size(limit)}",
        evidence=("/proc/self/limits: Max locked memory",),
        remedy="raise it (limits.d 'memlock', LimitMEMLOCK= of the service), or run as root",
    )


def not_root(lane: int | None, facts: Facts, what: str) -> Refusal | None:
    if facts.uid == 0:
        return None
    return Refusal(
        code="not-root",
        lane=lane,
        reason=f"{what} needs root, and this is user {facts.uid}",
        evidence=(f"effective uid {facts.uid}",),
        remedy="run nvlane with sudo",
    )
