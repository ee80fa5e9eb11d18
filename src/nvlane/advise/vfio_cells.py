"""Passthrough: a whole controller, or a virtual function. QEMU has nothing of it but its registers' places."""

from __future__ import annotations

from typing import Final

from nvlane.advise.cell import Cells, Operation, moot, no, unproven, yes
from nvlane.advise.evidence import lab, life, planned

_NO_LAYER: Final = "its data does not pass QEMU's block layer: it must be done in the guest"


def _passthrough(way: str) -> Cells:
    def without(operation: str) -> str:
        return lab("test_qemu_has_nothing_of_it_in_its_block_layer", f"{way}-{operation}")

    return {
        Operation.RESIZE: no("its size is the drive's own affair", without("resize")),
        Operation.SNAPSHOT: no(_NO_LAYER, without("snapshot")),
        Operation.MIRROR: no(_NO_LAYER, without("mirror")),
        Operation.BACKUP: no(_NO_LAYER, without("backup")),
        Operation.THROTTLE: no(_NO_LAYER, without("throttle")),
        Operation.LIVE_MIGRATION: no(
            "the drive's state cannot be moved, and QEMU says so; a drive with a variant driver of its own may differ",
            lab("test_what_is_said_against_its_migration", way),
        ),
        Operation.TARGET_RESTART: moot("no program is on its data path", lab("test_who_serves_it", way)),
        Operation.GUEST_REBOOT: yes("the guest is reset and finds it again", lab("test_after_a_reboot", way)),
        Operation.NEEDS_IOMMU: yes("VFIO needs its IOMMU group", planned("test_without_an_iommu", way)),
        Operation.NEEDS_HUGEPAGES: no(
            "ordinary memory will do; all of it is locked", planned("test_without_hugepages", way)
        ),
        Operation.IDLE_CPU: no("nobody waits for it on the host", lab("test_idle_it_takes_no_processor", way)),
    }


PASSTHROUGH: Final[Cells] = {
    **_passthrough("passthrough"),
    Operation.HOT_PLUG: yes("the drive is bound and plugged", life("passthrough"), lab("test_out", "passthrough")),
    Operation.HOT_UNPLUG: yes("and goes back to the host", life("passthrough"), lab("test_out", "passthrough")),
    Operation.MULTI_QUEUE: yes("the drive's own queues", lab("test_queues", "passthrough")),
    Operation.DISCARD: yes("as the drive itself has it", lab("test_discard", "passthrough")),
    Operation.SHARE_DRIVE: no(
        "the whole controller leaves the host: a second machine that names it is refused",
        lab("test_a_second_machine_is_refused", "passthrough"),
    ),
}

PASSTHROUGH_VF: Final[Cells] = {
    **_passthrough("passthrough-vf"),
    Operation.HOT_PLUG: yes("the function is bound and plugged", lab("test_in_again", "passthrough-vf")),
    Operation.HOT_UNPLUG: yes("and goes back to the host", lab("test_out", "passthrough-vf")),
    Operation.MULTI_QUEUE: unproven("as many queues as the drive was told to give the function"),
    Operation.DISCARD: unproven("as the drive itself has it"),
    Operation.SHARE_DRIVE: yes(
        "each machine has a function of its own", lab("test_two_machines_have_parts_of_one_drive", "passthrough-vf")
    ),
}
