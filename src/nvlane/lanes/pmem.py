"""What an NVDIMM lane comes to on this host: which device, how large, and what it keeps."""

from __future__ import annotations

from nvlane.facts.shape import DaxDevice, PathFacts
from nvlane.lanes.context import Context
from nvlane.model.claim import Keeps
from nvlane.model.size import MIB, align_up
from nvlane.spec.lane import Backing, Filesystem, Nvdimm, PmemDevice, PmemMode, PmemNamespace

REGION_ALIGNMENT = 16 * MIB
#: File systems whose files are memory of the host and nothing else.
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")


def choose_device(lane: Nvdimm, at: Context) -> tuple[PmemDevice, str]:
    """The device, and the reason where it is not the obvious one."""
    cached = is_cached(lane, at)
    if lane.device is PmemDevice.AUTO:
        if not cached:
            return PmemDevice.NVDIMM, ""
        return PmemDevice.VIRTIO_PMEM, (
            f"{lane.path} is in the host's page cache, which no NVDIMM can flush: the guest gets virtio-pmem, which can"
        )
    if lane.device is PmemDevice.NVDIMM and cached and not lane.read_only:
        lost = f"{lane.path} is in the host's page cache: what the guest flushes is lost if the host loses power"
        if lane.armed:
            return PmemDevice.NVDIMM, f'{lost}; device = "auto" takes virtio-pmem, which keeps it'
        return PmemDevice.NVDIMM, (
            f"{lost}, so the NVDIMM is unarmed, and Linux only reads it; "
            'device = "auto" takes virtio-pmem, which keeps it, and armed = true trusts the file all the same'
        )
    return lane.device, ""


def is_cached(lane: Nvdimm, at: Context) -> bool:
    """Whether stores go to the page cache of a file, which only the host can write back."""
    return lane.backing is Backing.FILE and not at.facts.path(lane.path).dax


def is_unarmed(lane: Nvdimm, at: Context) -> bool:
    """Whether an NVDIMM tells its guest that it cannot keep what is written. Linux makes its region read-only
    (drivers/acpi/nfit/core.c, ACPI_NFIT_MEM_NOT_ARMED; drivers/nvdimm/region_devs.c, NDD_UNARMED)."""
    device, _ = choose_device(lane, at)
    return device is PmemDevice.NVDIMM and (lane.read_only or (is_cached(lane, at) and not lane.armed))


def keeps(lane: Nvdimm, at: Context) -> Keeps | None:
    """What the host has of the guest's writes later on; None where it can write none."""
    if lane.read_only:
        return None
    if lane.backing in (Backing.HUGEPAGES, Backing.MEMORY):
        return Keeps.NOTHING
    if not is_cached(lane, at):
        return Keeps.FLUSHED_STORES
    device, _ = choose_device(lane, at)
    synced = device is PmemDevice.VIRTIO_PMEM and not is_in_memory(at.facts.path(lane.path))
    return Keeps.SYNCED_WRITES if synced else Keeps.UNTIL_POWER_FAILS


def is_in_memory(seen: PathFacts) -> bool:
    return seen.filesystem in _IN_MEMORY


def namespaces(lane: Nvdimm) -> tuple[PmemNamespace, ...]:
    """Those that the spec lists, or the one that its own keys describe: nameless, and of no size but the region's."""
    if lane.namespaces:
        return lane.namespaces
    one = PmemNamespace(
        name="",
        size=0,
        mode=lane.mode,
        sector_size=lane.sector_size,
        align=lane.align,
        filesystem=lane.filesystem,
        mountpoint=lane.mountpoint,
    )
    return (one,)


def is_made_use_of(lane: Nvdimm) -> bool:
    """Whether the guest has to write to it for what the spec wants: a namespace's map, a file system, a proof."""
    wanted = namespaces(lane)
    made = any(one.mode is not PmemMode.RAW or one.filesystem is not Filesystem.NONE for one in wanted)
    return made or bool(lane.namespaces) or lane.write_proof


def label_size(lane: Nvdimm) -> int:
    """The label as QEMU gets it: whole pages of the backing, for the backend must be made of them."""
    return (
        align_up(lane.label, lane.hugepage_size if lane.backing is Backing.HUGEPAGES else 2 * MIB) if lane.label else 0
    )


def usable_size(lane: Nvdimm, at: Context) -> int:
    """What the guest's region has, in bytes."""
    if lane.backing is Backing.DAX and not lane.size:
        dax = dax_device(lane, at)
        return ((dax.size if dax else 0) - label_size(lane)) // REGION_ALIGNMENT * REGION_ALIGNMENT
    return align_up(lane.size, REGION_ALIGNMENT)


def backend_size(lane: Nvdimm, at: Context) -> int:
    """Usable size and label, in whole pages of the backing."""
    size = usable_size(lane, at) + label_size(lane)
    return align_up(size, lane.hugepage_size) if lane.backing is Backing.HUGEPAGES else size


def host_node(lane: Nvdimm, at: Context) -> tuple[int, int]:
    """The host's node that hugepages are taken from, and the one that the memory is bound to (-1: none)."""
    if lane.node is None:
        return at.node, at.bind
    return lane.node, lane.node if len(at.facts.nodes) > 1 else -1


def dax_device(lane: Nvdimm, at: Context) -> DaxDevice | None:
    return next((d for d in at.facts.dax_devices if d.path == lane.path), None)
