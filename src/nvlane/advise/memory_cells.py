"""Persistent memory: bytes that the guest loads and stores. There is no disk, no queue and no block layer."""

from __future__ import annotations

from typing import Final

from nvlane.advise.cell import Cell, Cells, Operation, moot, no, unproven, when, yes
from nvlane.advise.evidence import asked, calm, case, inside, lab, planned

_NO_LAYER: Final = "it is memory, and no block layer is between"
_NO_QUEUE: Final = "loads and stores have no queue"
_WITH_ROOM: Final = "where the machine was started with persistent memory, and has a slot left"
_STAYS: Final = "it stays until nvlane down: a guest cannot be made to let go of memory"
_ATTACHED: Final = inside("test_nvdimm.py::test_an_nvdimm_is_attached_and_stays")
_NOBODY: Final = "no program is on its data path"
_NO_DISCARD: Final = "a store is a store: whether the guest is offered discard has not been looked at"


def _asked(way: str) -> Cells:
    """What a real QEMU answers for it."""

    def without(operation: str) -> Cell:
        return no(_NO_LAYER, asked("test_qemu_has_nothing_of_it_in_its_block_layer", f"{way}-{operation}"))

    return {
        Operation.RESIZE: without("resize"),
        Operation.SNAPSHOT: without("snapshot"),
        Operation.MIRROR: without("mirror"),
        Operation.BACKUP: without("backup"),
        Operation.THROTTLE: without("throttle"),
        Operation.LIVE_MIGRATION: when(
            "its content goes along as memory does; the other side must have as much",
            asked("test_qemu_would_migrate_it", way),
        ),
        Operation.TARGET_RESTART: moot(_NOBODY, asked("test_who_serves_it", way)),
        Operation.IDLE_CPU: no(_NOBODY, asked("test_idle_it_takes_no_processor", way)),
    }


NVDIMM: Final[Cells] = {
    **_asked("nvdimm-memory"),
    Operation.HOT_PLUG: when(_WITH_ROOM, _ATTACHED, case("attach/nvdimm-refused"), case("attach/nvdimm-no-slot")),
    Operation.HOT_UNPLUG: no(_STAYS, _ATTACHED),
    Operation.GUEST_REBOOT: yes("the region is there again", lab("test_after_a_reboot", "nvdimm-memory")),
    Operation.MULTI_QUEUE: moot(_NO_QUEUE, inside("test_nvdimm.py::test_four_namespaces_in_one_nvdimm")),
    Operation.DISCARD: unproven(_NO_DISCARD),
    Operation.SHARE_DRIVE: moot("it is made of memory, and no drive", planned("test_without_drives", "nvdimm-memory")),
    Operation.NEEDS_IOMMU: no("no device is given away", planned("test_without_an_iommu", "nvdimm-memory")),
    Operation.NEEDS_HUGEPAGES: when(
        'only with backing = "hugepages"',
        planned("test_without_hugepages", "nvdimm-memory"),
        inside("test_nvdimm.py::test_hugepages_of_the_nvdimm_are_reserved"),
    ),
}


def _dax(operation: str) -> Cell:
    return no(_NO_LAYER, calm("test_qemu_has_nothing_of_it_in_its_block_layer", f"nvdimm-dax-{operation}"))


_DAX_FILE: Final = inside("test_nvdimm.py::test_a_file_on_the_dax_mount_is_persistent_memory[dax-/mnt/dax]")
NVDIMM_DAX: Final[Cells] = {
    Operation.HOT_PLUG: unproven("as another NVDIMM; not tried with a DAX device"),
    Operation.HOT_UNPLUG: no(_STAYS, calm("test_it_stays", "nvdimm-dax")),
    Operation.RESIZE: _dax("resize"),
    Operation.SNAPSHOT: _dax("snapshot"),
    Operation.MIRROR: _dax("mirror"),
    Operation.BACKUP: _dax("backup"),
    Operation.THROTTLE: _dax("throttle"),
    Operation.LIVE_MIGRATION: when(
        "QEMU says nothing against it, but on one host both would map it: to another host, which must have as much",
        calm("test_what_is_said_against_its_migration", "nvdimm-dax"),
    ),
    Operation.TARGET_RESTART: moot("the guest stores to the host's own persistent memory", _DAX_FILE),
    Operation.GUEST_REBOOT: yes("the region is there again", calm("test_after_a_reboot", "nvdimm-dax")),
    Operation.MULTI_QUEUE: moot(_NO_QUEUE, _DAX_FILE),
    Operation.DISCARD: unproven(_NO_DISCARD),
    Operation.SHARE_DRIVE: no(
        "a DAX device belongs to one machine; make several of it (ndctl create-namespace --size)",
        inside("test_nvdimm.py::test_a_dax_device_is_given_to_one_machine"),
    ),
    Operation.NEEDS_IOMMU: no("no device is given away", planned("test_without_an_iommu", "nvdimm-dax")),
    Operation.NEEDS_HUGEPAGES: no("the DAX device is its own memory", planned("test_without_hugepages", "nvdimm-dax")),
    Operation.IDLE_CPU: no(_NOBODY, calm("test_idle_it_takes_no_processor", "nvdimm-dax")),
}

VIRTIO_PMEM: Final[Cells] = {
    **_asked("virtio-pmem"),
    Operation.LIVE_MIGRATION: when(
        "QEMU says nothing against it, but on one host both would map the file: nvlane migrate refuses",
        asked("test_nvlane_does_not_migrate_it", "virtio-pmem"),
        asked("test_qemu_would_migrate_it", "virtio-pmem"),
    ),
    Operation.HOT_PLUG: when(_WITH_ROOM, calm("test_in", "virtio-pmem"), case("attach/virtio-pmem-refused")),
    Operation.HOT_UNPLUG: no(_STAYS, calm("test_it_stays", "virtio-pmem")),
    Operation.GUEST_REBOOT: yes("the region is there again", calm("test_after_a_reboot", "virtio-pmem")),
    Operation.MULTI_QUEUE: moot(
        "loads and stores have no queue; a flush goes to the host through one",
        inside("test_nvdimm.py::test_what_a_guest_flushes_reaches_the_disk_through_virtio_pmem_only"),
    ),
    Operation.DISCARD: unproven(_NO_DISCARD),
    Operation.SHARE_DRIVE: yes(
        "files of many machines lie on one drive's file system", asked("test_a_drive_is_shared", "virtio-pmem")
    ),
    Operation.NEEDS_IOMMU: no("a file needs none", planned("test_without_an_iommu", "virtio-pmem")),
    Operation.NEEDS_HUGEPAGES: no("the file is its own memory", planned("test_without_hugepages", "virtio-pmem")),
}
