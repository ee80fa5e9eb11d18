"""Ways through QEMU's block layer: emulated, userspace, fabrics."""

from __future__ import annotations

from typing import Final

from nvlane.advise.cell import Cells, Operation, no, when, yes
from nvlane.advise.evidence import asked, calm, case, inside, jobs, lab, life, planned

_LAYER: Final = "QEMU's block layer does it"
_SNAPSHOT: Final = "QEMU does it (QMP); nvlane snapshot does not, for no spec could name the file above"
_ITSELF: Final = "QEMU itself serves it: only another QEMU, which live migration would need, could replace it"
_REBOOT: Final = "the guest is reset and finds it again, as it was claimed"
_QUEUES: Final = "the guest has a queue for each of its processors"
_DISCARD: Final = "the guest is offered it"
_NO_HUGEPAGES: Final = "ordinary memory will do"
_SLEEPS: Final = "QEMU's threads sleep until there is something to do"
_VFIO: Final = "the drive goes to VFIO, which needs its IOMMU group"
_NO_NVME: Final = "QEMU cannot migrate its NVMe controller, and says so"
_WHOLE: Final = "the whole controller leaves the host: a second machine that names it is refused"

EMULATED: Final[Cells] = {
    Operation.HOT_PLUG: when(
        "a controller with one plain namespace; not a subsystem, virtual functions or several namespaces",
        life("emulated"),
        case("attach/emulated-refused"),
    ),
    Operation.HOT_UNPLUG: when(
        "a controller that was attached; of one of the start QEMU 10.0 keeps the namespaces, so it is refused",
        life("emulated"),
        lab("test_a_namespace_of_the_start_stays", "emulated"),
    ),
    Operation.RESIZE: no(
        "QEMU keeps everybody from resizing what its controller serves, for it would never tell the guest",
        asked("test_a_namespace_of_qemus_controller_is_not_resized", "emulated"),
        jobs("test_an_honest_no[verb0-'resize' is unshared by the device]"),
    ),
    Operation.SNAPSHOT: yes(_LAYER, jobs("test_snapshot"), asked("test_qemu_does_it", "emulated-snapshot")),
    Operation.MIRROR: yes(
        _LAYER, jobs("test_mirror_while_the_guest_writes"), asked("test_qemu_does_it", "emulated-mirror")
    ),
    Operation.BACKUP: yes(_LAYER, asked("test_qemu_does_it", "emulated-backup")),
    Operation.THROTTLE: yes(_LAYER, asked("test_qemu_does_it", "emulated-throttle")),
    Operation.LIVE_MIGRATION: no(
        _NO_NVME,
        asked("test_qemu_refuses_to_migrate_it", "emulated"),
        asked("test_nvlane_does_not_migrate_it", "emulated"),
    ),
    Operation.TARGET_RESTART: no(_ITSELF, asked("test_who_serves_it", "emulated")),
    Operation.GUEST_REBOOT: yes(_REBOOT, lab("test_after_a_reboot", "emulated")),
    Operation.MULTI_QUEUE: yes(_QUEUES, lab("test_queues", "emulated")),
    Operation.DISCARD: yes(_DISCARD, lab("test_discard", "emulated")),
    Operation.SHARE_DRIVE: yes(
        "images of many machines lie on one drive's file system", asked("test_a_drive_is_shared", "emulated")
    ),
    Operation.NEEDS_IOMMU: no("an image is a file", planned("test_without_an_iommu", "emulated")),
    Operation.NEEDS_HUGEPAGES: no(_NO_HUGEPAGES, planned("test_without_hugepages", "emulated")),
    Operation.IDLE_CPU: no(_SLEEPS, asked("test_idle_it_takes_no_processor", "emulated")),
}


def _userspace(way: str) -> Cells:
    """What does not depend on the front end."""
    return {
        Operation.RESIZE: no(
            "a namespace has the size that the drive gives it, and QEMU does not change that",
            lab("test_qemu_refuses_to_resize", way),
        ),
        Operation.SNAPSHOT: when(_SNAPSHOT, lab("test_qemu_does_it", f"{way}-snapshot")),
        Operation.MIRROR: yes(_LAYER, lab("test_qemu_does_it", f"{way}-mirror")),
        Operation.BACKUP: yes(_LAYER, lab("test_qemu_does_it", f"{way}-backup")),
        Operation.THROTTLE: yes(_LAYER, lab("test_qemu_does_it", f"{way}-throttle")),
        Operation.TARGET_RESTART: no(_ITSELF, lab("test_who_serves_it", way)),
        Operation.GUEST_REBOOT: yes(_REBOOT, lab("test_after_a_reboot", way)),
        Operation.MULTI_QUEUE: yes(_QUEUES, lab("test_queues", way)),
        Operation.DISCARD: yes(_DISCARD, lab("test_discard", way)),
        Operation.SHARE_DRIVE: no(_WHOLE, lab("test_a_second_machine_is_refused", way)),
        Operation.NEEDS_IOMMU: yes(_VFIO, planned("test_without_an_iommu", way)),
        Operation.NEEDS_HUGEPAGES: no(
            "ordinary memory will do; all of it is locked", planned("test_without_hugepages", way)
        ),
        Operation.IDLE_CPU: no(_SLEEPS, lab("test_idle_it_takes_no_processor", way)),
    }


USERSPACE: Final[Cells] = {
    **_userspace("userspace"),
    Operation.MIRROR: yes(
        _LAYER, jobs("test_from_a_drive_to_a_file_that_grows"), lab("test_qemu_does_it", "userspace-mirror")
    ),
    Operation.HOT_PLUG: yes("the drive is bound and plugged", life("userspace"), lab("test_out", "userspace")),
    Operation.HOT_UNPLUG: yes("and goes back to the host", life("userspace"), lab("test_out", "userspace")),
    Operation.LIVE_MIGRATION: when(
        "its disk becomes a file on the way (--copy-storage): two QEMUs cannot drive one controller",
        lab("test_what_is_said_against_its_migration", "userspace"),
        inside("test_migrate.py::test_a_drive_becomes_a_file_on_the_way"),
    ),
}

USERSPACE_NVME: Final[Cells] = {
    **_userspace("userspace-nvme"),
    Operation.HOT_PLUG: yes("the drive is bound and plugged", lab("test_in_again", "userspace-nvme")),
    Operation.HOT_UNPLUG: yes("the guest lets go of it, and it goes back", lab("test_out", "userspace-nvme")),
    Operation.LIVE_MIGRATION: no(_NO_NVME, lab("test_what_is_said_against_its_migration", "userspace-nvme")),
}

FABRICS: Final[Cells] = {
    Operation.HOT_PLUG: yes("connected and plugged", calm("test_out_and_in", "fabrics")),
    Operation.HOT_UNPLUG: yes("the guest lets go of it", calm("test_out_and_in", "fabrics")),
    Operation.RESIZE: when(
        "the Target grows it, then QEMU is told (block_resize), and the guest sees it at once",
        calm("test_the_guest_sees_that_it_has_grown", "fabrics"),
    ),
    Operation.SNAPSHOT: when(_SNAPSHOT, calm("test_qemu_does_it", "fabrics-snapshot")),
    Operation.MIRROR: yes(_LAYER, calm("test_qemu_does_it", "fabrics-mirror")),
    Operation.BACKUP: yes(_LAYER, calm("test_qemu_does_it", "fabrics-backup")),
    Operation.THROTTLE: yes(_LAYER, calm("test_qemu_does_it", "fabrics-throttle")),
    Operation.LIVE_MIGRATION: when(
        "QEMU says nothing against it; on another host, that must be allowed at the Target and connect first",
        calm("test_what_is_said_against_its_migration", "fabrics"),
    ),
    Operation.TARGET_RESTART: yes(
        "the Target goes away and comes back, and the guest's I/O waits for it",
        inside("test_fabrics.py::test_the_guest_waits_for_a_target_that_is_booted_anew"),
        inside("test_fabrics.py::test_a_lost_path_is_not_noticed_and_comes_back"),
    ),
    Operation.GUEST_REBOOT: yes("the guest is reset and finds it again", calm("test_a_disk_after_a_reboot", "fabrics")),
    Operation.MULTI_QUEUE: yes(_QUEUES, calm("test_queues", "fabrics")),
    Operation.DISCARD: yes("the guest is offered what the Target offers", calm("test_discard", "fabrics")),
    Operation.SHARE_DRIVE: when(
        "a namespace for each machine; one namespace for two is refused",
        calm("test_two_machines_have_parts_of_one_drive", "fabrics"),
        inside("test_fabrics.py::test_a_namespace_that_a_guest_has_is_not_given_to_another"),
    ),
    Operation.NEEDS_IOMMU: no("the drive is in another host", planned("test_without_an_iommu", "fabrics")),
    Operation.NEEDS_HUGEPAGES: no(_NO_HUGEPAGES, planned("test_without_hugepages", "fabrics")),
    Operation.IDLE_CPU: no(_SLEEPS, calm("test_idle_it_takes_no_processor", "fabrics")),
}
