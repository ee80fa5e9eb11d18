"""Rules of an NVDIMM lane."""

from __future__ import annotations

from nvlane.model.size import KIB, format_size
from nvlane.spec.lane import Backing, Filesystem, Nvdimm, PmemDevice, PmemMode
from nvlane.spec.problem import Problem, Problems
from nvlane.spec.rules.machine import page_size

#: QEMU's hw/mem/nvdimm.c refuses a label area under MIN_NAMESPACE_LABEL_SIZE.
_SMALLEST_LABEL = 128 * KIB


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


def filesystem_has_dax(lane: Nvdimm, place: str) -> Problems:
    """A file system needs a lane that can be written, and mode `fsdax` (virtio-pmem has no modes)."""
    virtio = lane.device is PmemDevice.VIRTIO_PMEM
    if lane.filesystem is not Filesystem.NONE and lane.mode is not PmemMode.FSDAX and not virtio:
        message = f'"{lane.filesystem}" with DAX needs a namespace in mode fsdax'
        yield Problem(place=f"{place}.filesystem", message=message, remedy='write mode = "fsdax"')
    if lane.filesystem is not Filesystem.NONE and lane.read_only:
        message = "the guest cannot make one on a read-only lane"
        yield Problem(place=f"{place}.filesystem", message=message, remedy="drop filesystem or read_only")


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
    filesystem_has_dax,
    proof_can_be_written,
)
