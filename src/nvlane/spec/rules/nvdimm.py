"""Rules of an NVDIMM lane."""

from __future__ import annotations

from collections.abc import Iterator

from nvlane.model.size import GIB, KIB, MIB, format_size
from nvlane.spec.lane import Backing, Filesystem, Nvdimm, PmemDevice, PmemMode, PmemNamespace
from nvlane.spec.problem import Problem, Problems
from nvlane.spec.rules.machine import page_size

#: QEMU's hw/mem/nvdimm.c refuses a label area under MIN_NAMESPACE_LABEL_SIZE.
_SMALLEST_LABEL = 128 * KIB
#: Linux has regions and their namespaces in steps of this.
_STEP = 16 * MIB
#: mkfs.xfs makes none that is smaller (xfsprogs 5.19, 300 MB), and a page map takes a part of it.
_SMALLEST_XFS = 320 * MIB
#: The smallest arena of a BTT (drivers/nvdimm/btt.h, ARENA_MIN_SIZE), which starts 4 KiB into the namespace.
_ARENA = 16 * MIB
_ALIGNMENTS = (0, 4 * KIB, 2 * MIB, GIB)
_SECTORS = (512, 4096)


def _each(lane: Nvdimm, place: str) -> Iterator[tuple[str, Nvdimm | PmemNamespace]]:
    """What can have a mode: the lane itself, and each of its namespaces."""
    yield place, lane
    for index, namespace in enumerate(lane.namespaces):
        yield f"{place}.namespaces[{index}]", namespace


def path_matches_backing(lane: Nvdimm, place: str) -> Problems:
    """A backing of `file` or `dax` has a path; hugepages and memory have none."""
    named = lane.backing in (Backing.FILE, Backing.DAX)
    if named and not lane.path:
        message = f"the key 'path' is missing for backing = \"{lane.backing}\""
        yield Problem(place=place, message=message, remedy="name the file or the DAX device: path = …")
    if lane.path and not named:
        message = f'is not used by backing = "{lane.backing}"'
        yield Problem(place=f"{place}.path", message=message, remedy='drop path, or write backing = "file"')


def has_a_size(lane: Nvdimm, place: str) -> Problems:
    """Only a DAX device has a size of its own."""
    if not lane.size and lane.backing is not Backing.DAX:
        message = f"the key 'size' is missing for backing = \"{lane.backing}\""
        yield Problem(place=place, message=message, remedy='say how much the guest shall have: size = "4GiB"')


def label_fits(lane: Nvdimm, place: str) -> Problems:
    """The label is smaller than the NVDIMM, 128KiB or more, and virtio-pmem has none."""
    if not lane.label:
        return
    if lane.size and lane.label >= lane.size:
        message = f"{format_size(lane.label)} is not smaller than the NVDIMM ({format_size(lane.size)})"
        yield Problem(place=f"{place}.label", message=message, remedy='write label = "2MiB", or raise size')
    elif lane.label < _SMALLEST_LABEL:
        message = f"{format_size(lane.label)} is less than the smallest label (128KiB)"
        yield Problem(place=f"{place}.label", message=message, remedy='write label = "2MiB"')
    if lane.device is PmemDevice.VIRTIO_PMEM:
        message = "virtio-pmem has no label"
        yield Problem(place=f"{place}.label", message=message, remedy='drop label, or write device = "nvdimm"')


def hugepage_size_is_one(lane: Nvdimm, place: str) -> Problems:
    """`hugepage_size` is a power of two from 2MiB."""
    yield from page_size(lane.hugepage_size, f"{place}.hugepage_size")


def filesystem_has_a_disk(lane: Nvdimm, place: str) -> Problems:
    """A file system needs a lane that can be written, and mode `fsdax` (with DAX) or `sector` (without); on virtio-pmem
    it needs no mode. XFS has 320MiB or more."""
    virtio = lane.device is PmemDevice.VIRTIO_PMEM
    for where, one in _each(lane, place):
        if one.filesystem is Filesystem.NONE:
            continue
        if one.mode is PmemMode.DEVDAX:
            message = "devdax has no disk for a file system: programs map it"
            yield Problem(place=f"{where}.filesystem", message=message, remedy='write mode = "fsdax"')
        if one.mode is PmemMode.RAW and not virtio:
            message = f'"{one.filesystem}" on a raw namespace has no DAX: Linux has no page map of it'
            remedy = 'write mode = "fsdax"; mode = "sector" is for a file system without DAX'
            yield Problem(place=f"{where}.filesystem", message=message, remedy=remedy)
        if one.filesystem is Filesystem.XFS and 0 < one.size < _SMALLEST_XFS:
            message = f"xfs has no room in {format_size(one.size)}"
            remedy = f'give it {format_size(_SMALLEST_XFS)}, or write filesystem = "ext4"'
            yield Problem(place=f"{where}.filesystem", message=message, remedy=remedy)
        if lane.read_only:
            message = "the guest cannot make one on a read-only lane"
            yield Problem(place=f"{where}.filesystem", message=message, remedy="drop filesystem or read_only")


def mode_fits_its_keys(lane: Nvdimm, place: str) -> Problems:
    """`sector_size` is 512 or 4096, and mode `sector` has more than 16MiB; `align` is 4KiB, 2MiB or 1GiB, and there in
    the modes `fsdax` and `devdax` only."""
    for where, one in _each(lane, place):
        if one.mode is PmemMode.SECTOR and 0 < one.size <= _ARENA:
            message = f"{format_size(one.size)} are too few for sectors and their map"
            yield Problem(place=f"{where}.size", message=message, remedy="give it 32MiB or more")
        if one.sector_size not in _SECTORS:
            message = f"{one.sector_size} is not a sector size here"
            yield Problem(place=f"{where}.sector_size", message=message, remedy="write 512 or 4096")
        if one.align not in _ALIGNMENTS:
            message = f"{format_size(one.align)} is not the size of a page"
            yield Problem(place=f"{where}.align", message=message, remedy="write 4KiB, 2MiB or 1GiB")
        elif one.align and one.mode not in (PmemMode.FSDAX, PmemMode.DEVDAX):
            message = f'mode = "{one.mode}" is not mapped by programs, so it has no alignment'
            yield Problem(place=f"{where}.align", message=message, remedy="drop align")


def namespaces_fit(lane: Nvdimm, place: str) -> Problems:
    """Several namespaces need a label area that lists them, names and mountpoints of their own, sizes in steps of
    16MiB, and room; the lane itself then has no mode."""
    if not lane.namespaces:
        return
    where = f"{place}.namespaces"
    if not lane.label:
        message = "without a label area an NVDIMM has one namespace"
        yield Problem(place=where, message=message, remedy='write label = "2MiB"')
    if lane.mode is not PmemMode.RAW or lane.filesystem is not Filesystem.NONE or lane.align:
        message = "stands beside mode, filesystem or align of the lane, which are for its only namespace"
        yield Problem(place=where, message=message, remedy="write them into the namespaces")
    names: set[str] = set()
    for index, one in enumerate(lane.namespaces):
        if one.name in names:
            message = f"another namespace of this lane is called '{one.name}'"
            yield Problem(place=f"{where}[{index}].name", message=message, remedy="give each its own")
        names.add(one.name)
        if one.size % _STEP:
            message = f"{format_size(one.size)} is not in steps of 16MiB, which Linux has namespaces in"
            remedy = f"write {format_size((one.size // _STEP + 1) * _STEP)}"
            yield Problem(place=f"{where}[{index}].size", message=message, remedy=remedy)
    total = sum(one.size for one in lane.namespaces)
    if lane.size and total > lane.size:
        message = f"together they have {format_size(total)}, and the lane {format_size(lane.size)}"
        yield Problem(place=where, message=message, remedy=f"raise size to {format_size(total)}")


def node_can_be_chosen(lane: Nvdimm, place: str) -> Problems:
    """`node` is for hugepages and memory: a file or a DAX device is where it is. `guest_node` is for NVDIMMs."""
    if lane.node is not None and lane.backing in (Backing.FILE, Backing.DAX):
        message = f'a backing = "{lane.backing}" is on the node that it is on'
        yield Problem(place=f"{place}.node", message=message, remedy="drop node")
    if lane.guest_node is not None and lane.device is PmemDevice.VIRTIO_PMEM:
        message = "virtio-pmem belongs to no NUMA node of the guest"
        remedy = 'drop guest_node, or write device = "nvdimm"'
        yield Problem(place=f"{place}.guest_node", message=message, remedy=remedy)


def proof_can_be_written(lane: Nvdimm, place: str) -> Problems:
    """`write_proof` needs a lane that the guest may write, and a backing that outlives QEMU."""
    if lane.write_proof and lane.read_only:
        yield Problem(
            place=f"{place}.write_proof",
            message="the lane is read-only",
            remedy="drop write_proof or read_only",
        )
    if lane.write_proof and lane.backing in (Backing.HUGEPAGES, Backing.MEMORY):
        message = f'of backing = "{lane.backing}" nothing is left to read after `down`'
        yield Problem(
            place=f"{place}.write_proof",
            message=message,
            remedy='write backing = "file", or drop write_proof',
        )


RULES = (
    path_matches_backing,
    has_a_size,
    label_fits,
    hugepage_size_is_one,
    filesystem_has_a_disk,
    mode_fits_its_keys,
    namespaces_fit,
    node_can_be_chosen,
    proof_can_be_written,
)
