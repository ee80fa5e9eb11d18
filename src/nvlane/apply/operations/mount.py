"""hugetlbfs mounts."""

from __future__ import annotations

import errno
import re

from nvlane.apply.operations.found import FoundMount
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed, kept
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.model.size import MIB
from nvlane.plan.step import MountHugetlbfs, Unmount


def observe_mount(host: HostReader, target: str) -> FoundMount:
    """What is mounted on exactly `target`: the topmost, which mountinfo lists last (proc_pid_mountinfo(5))."""
    found = FoundMount(fstype="", options="")
    for line in host.read_text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        # Space, tab, newline and backslash in a path are written as octal escapes (proc_pid_mountinfo(5)).
        path = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), left.split()[4])
        if path == target:
            fstype, _source, options = right.split()[:3]
            found = FoundMount(fstype=fstype, options=options)
    return found


class MountHugetlbfsOperation:
    def observe(self, host: Host, step: MountHugetlbfs) -> FoundMount:
        return observe_mount(host, step.target)

    def check(self, host: Host, step: MountHugetlbfs, found: FoundMount) -> None:  # noqa: ARG002
        if found.fstype and not _is_wanted(step, found):
            raise HostError(
                f"{step.target} is a mount already ({found.fstype}, {found.options})",
                remedy="unmount it, or name another directory",
            )

    def perform(self, host: Host, step: MountHugetlbfs, found: FoundMount, keep: Keep) -> None:  # noqa: ARG002
        if not found.fstype:
            host.mount("nvlane", step.target, "hugetlbfs", f"pagesize={step.page_size // MIB}M,mode=0700")

    def inverse(self, step: MountHugetlbfs, found: FoundMount, result: None) -> Unmount | None:  # noqa: ARG002
        return None if found.fstype else Unmount(target=step.target, fstype="hugetlbfs")


class UnmountReversal(Idempotent):
    def observe(self, host: Host, inverse: Unmount) -> FoundMount:
        return observe_mount(host, inverse.target)

    def perform(self, host: Host, inverse: Unmount, found: FoundMount) -> Outcome:
        if not found.fstype:
            return already("nothing is mounted there")
        if found.fstype != inverse.fstype:
            return kept(f"somebody else has mounted {found.fstype} on {inverse.target}")
        try:
            host.umount(inverse.target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise HostError(f"cannot unmount {inverse.target}: {error.strerror}") from error
            return failed(
                f"{inverse.target} is in use", remedy=f"fuser -vm {inverse.target} shows by whom; then nvlane restore"
            )
        return PUT_BACK


def _is_wanted(step: MountHugetlbfs, found: FoundMount) -> bool:
    return found.fstype == "hugetlbfs" and f"pagesize={step.page_size // MIB}M" in found.options.split(",")
