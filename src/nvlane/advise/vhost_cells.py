"""vhost-user: a target serves the guest; what QEMU's block layer would do must live there."""

from __future__ import annotations

from typing import Final

from nvlane.advise.cell import Cells, Operation, no, when, yes
from nvlane.advise.evidence import asked, inside, jobs, lab, life, planned, target

_NO_LAYER: Final = "its data does not pass QEMU's block layer, and nvlane-target has no block jobs"
_NO_TARGET: Final = asked("test_nvlane_target_has_no_block_jobs", "vhost-user-file")
_REBOOT: Final = "the guest is reset and finds it again"
_QUEUES: Final = "a queue for each processor of the guest"
_SHARED: Final = "memory must be shared, and memfd will do"
_BY_THE_TARGET: Final = "nvlane throttle, done by the target: in steps of 1000 I/O a second"
_OWN_MONITOR: Final = "through the daemon's own QMP monitor in the lane's directory"


def _without(way: str, operation: str) -> str:
    room = lab if way == "vhost-user-drive" else asked
    return room("test_qemu_has_nothing_of_it_in_its_block_layer", f"{way}-{operation}")


def _nvlane(way: str) -> Cells:
    """What nvlane-target does on any bdev."""
    return {
        Operation.SNAPSHOT: no(_NO_LAYER, _without(way, "snapshot"), _NO_TARGET),
        Operation.MIRROR: no(_NO_LAYER, _without(way, "mirror"), _NO_TARGET),
        Operation.BACKUP: no(_NO_LAYER, _without(way, "backup"), _NO_TARGET),
        Operation.THROTTLE: when(
            _BY_THE_TARGET, jobs("test_limits_by_the_target"), target("test_rpc_methods.py::test_limits")
        ),
        Operation.GUEST_REBOOT: yes(_REBOOT, lab("test_after_a_reboot", way)),
        Operation.MULTI_QUEUE: yes(_QUEUES, lab("test_queues", way)),
        Operation.NEEDS_HUGEPAGES: no(_SHARED, planned("test_without_hugepages", way)),
        Operation.IDLE_CPU: no(
            "the target polls while there is work, and sleeps when there is none",
            target("test_rpc_wire.py::test_an_idle_target_sleeps"),
            lab("test_idle_it_takes_no_processor", way),
        ),
    }


VHOST_DRIVE: Final[Cells] = {
    **_nvlane("vhost-user-drive"),
    Operation.HOT_PLUG: yes(
        "target and drive come with it, where memory is shared",
        life("vhost-user-drive"),
        lab("test_out", "vhost-user-drive"),
    ),
    Operation.HOT_UNPLUG: yes("and go with it", life("vhost-user-drive"), lab("test_out", "vhost-user-drive")),
    Operation.RESIZE: no("a namespace has the size that the drive gives it", _without("vhost-user-drive", "resize")),
    Operation.LIVE_MIGRATION: no(
        "QEMU says nothing against it, but a second target cannot have the drive, and nothing mirrors it elsewhere",
        lab("test_what_is_said_against_its_migration", "vhost-user-drive"),
        lab("test_a_second_machine_is_refused", "vhost-user-drive"),
    ),
    Operation.TARGET_RESTART: yes(
        "killed or replaced: the guest waits, and no request is lost",
        inside("test_vhost_user.py::test_a_guest_that_writes_loses_nothing[killed-drive]"),
        inside("test_vhost_user.py::test_a_guest_that_writes_loses_nothing[replaced-drive]"),
    ),
    Operation.DISCARD: yes("the guest is offered it", lab("test_discard", "vhost-user-drive")),
    Operation.SHARE_DRIVE: no(
        "the target takes the whole controller: a second machine that names it is refused",
        lab("test_a_second_machine_is_refused", "vhost-user-drive"),
    ),
    Operation.NEEDS_IOMMU: yes("the drive goes to VFIO", planned("test_without_an_iommu", "vhost-user-drive")),
}

VHOST_FILE: Final[Cells] = {
    **_nvlane("vhost-user-file"),
    Operation.HOT_PLUG: yes(
        "the target comes with it, where memory is shared", life("vhost-user"), lab("test_out", "vhost-user-file")
    ),
    Operation.HOT_UNPLUG: yes("and goes with it", life("vhost-user"), lab("test_out", "vhost-user-file")),
    Operation.RESIZE: when(
        "nvlane resize, done by the target: the guest sees it at once; it grows, and never shrinks",
        jobs("test_resized_by_the_target"),
        target("test_guest.py::test_the_guest_sees_that_a_disk_has_grown[blk-split]"),
    ),
    Operation.LIVE_MIGRATION: when(
        "nvlane migrate gives a second QEMU of this host a second target on the file; not to another host",
        inside("test_migrate.py::test_while_the_guest_writes"),
        asked("test_qemu_would_migrate_it", "vhost-user-file"),
        target("test_migration.py::test_the_log_misses_no_write[blk-split]"),
    ),
    Operation.TARGET_RESTART: yes(
        "killed or replaced: the guest waits, and no request is lost",
        inside("test_vhost_user.py::test_a_guest_that_writes_loses_nothing[killed-new]"),
        inside("test_vhost_user.py::test_a_guest_that_writes_loses_nothing[replaced-new]"),
    ),
    Operation.DISCARD: yes(
        "what the guest discards is freed in the file",
        target("test_guest.py::test_discard_frees_the_space_and_zeroes_are_zeroes[blk-split]"),
        target("test_guest.py::test_trim_of_a_file_system_frees_the_space[blk-split]"),
    ),
    Operation.SHARE_DRIVE: yes(
        "files of many machines lie on one drive's file system", asked("test_a_drive_is_shared", "vhost-user-file")
    ),
    Operation.NEEDS_IOMMU: no("a file needs none", planned("test_without_an_iommu", "vhost-user-file")),
}

_DAEMON: Final = "vhost-user-daemon"
VHOST_DAEMON: Final[Cells] = {
    Operation.HOT_PLUG: yes("the daemon comes with it, where memory is shared", lab("test_in_again", _DAEMON)),
    Operation.HOT_UNPLUG: yes("the guest lets go of it, and the daemon ends", lab("test_out", _DAEMON)),
    Operation.RESIZE: when(
        f"{_OWN_MONITOR} (block_resize): the guest sees it at once",
        lab("test_the_guest_sees_that_it_has_grown", _DAEMON),
    ),
    Operation.SNAPSHOT: when(_OWN_MONITOR, asked("test_the_storage_daemon_does_it", f"{_DAEMON}-snapshot")),
    Operation.MIRROR: when(_OWN_MONITOR, asked("test_the_storage_daemon_does_it", f"{_DAEMON}-mirror")),
    Operation.BACKUP: when(_OWN_MONITOR, asked("test_the_storage_daemon_does_it", f"{_DAEMON}-backup")),
    Operation.THROTTLE: no(
        "neither QEMU nor the daemon has a limit for an export",
        _without(_DAEMON, "throttle"),
        asked("test_the_storage_daemon_has_no_limits_for_an_export", _DAEMON),
    ),
    Operation.LIVE_MIGRATION: no(
        "QEMU says nothing against it; nvlane migrate refuses, for nobody has shown that it logs what it writes",
        asked("test_nvlane_does_not_migrate_it", _DAEMON),
        asked("test_qemu_would_migrate_it", _DAEMON),
    ),
    Operation.TARGET_RESTART: no(
        "it keeps nothing of what is in flight, and a restart under a guest is refused",
        inside("test_vhost_daemon.py::test_it_is_not_replaced_under_a_guest"),
    ),
    Operation.GUEST_REBOOT: yes(_REBOOT, lab("test_after_a_reboot", _DAEMON)),
    Operation.MULTI_QUEUE: yes(
        _QUEUES,
        lab("test_queues", _DAEMON),
        inside("test_vhost_daemon.py::test_queues_are_equal_on_both_ends"),
    ),
    Operation.DISCARD: yes("the guest is offered it", lab("test_discard", _DAEMON)),
    Operation.SHARE_DRIVE: yes(
        "files of many machines lie on one drive's file system", asked("test_a_drive_is_shared", _DAEMON)
    ),
    Operation.NEEDS_IOMMU: no("a file needs none", planned("test_without_an_iommu", _DAEMON)),
    Operation.NEEDS_HUGEPAGES: no(_SHARED, planned("test_without_hugepages", _DAEMON)),
    Operation.IDLE_CPU: no("it sleeps until there is work", asked("test_idle_it_takes_no_processor", _DAEMON)),
}
