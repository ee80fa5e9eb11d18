"""configfs, node by node: the way in which the kernel's NVMe target is told what to export.

A node's attributes live and die with it, so the inverse of making one is removing it. rmdir(2) of an enabled namespace
closes what stands behind it, and removing a port's link ends its connections (drivers/nvme/target/configfs.c).
"""

from __future__ import annotations

import errno
from typing import Final

from nvlane.apply.operations.found import FoundNothing, FoundShared
from nvlane.apply.operations.key_file import read_secret
from nvlane.apply.operations.module import Others
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed, kept
from nvlane.apply.operations.shared import look_for, needed_by_another
from nvlane.facts.attribute import attribute, names
from nvlane.facts.fabrics import NVMET, configfs_mounted
from nvlane.model.errors import HostError
from nvlane.model.host import Host
from nvlane.plan.fabrics_step import (
    LinkConfigNode,
    MakeConfigNode,
    MountConfigfs,
    RemoveConfigLink,
    RemoveConfigNode,
    UnmountConfigfs,
)

_GROUPS: Final = ("subsystems", "hosts", "ports")


class MountConfigfsOperation:
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, step: MountConfigfs) -> FoundShared:
        return look_for(f"mount {step.target}", configfs_mounted(host), self._others)

    def check(self, host: Host, step: MountConfigfs, found: FoundShared) -> None:
        """A mount that came since it was planned is as good."""

    def perform(self, host: Host, step: MountConfigfs, found: FoundShared, keep: Keep) -> None:  # noqa: ARG002
        if not configfs_mounted(host):
            host.mount("configfs", step.target, "configfs", "")

    def inverse(self, step: MountConfigfs, found: FoundShared, result: None) -> UnmountConfigfs | None:  # noqa: ARG002
        return UnmountConfigfs(target=step.target) if found.missing else None


class UnmountConfigfsReversal(Idempotent):
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, inverse: UnmountConfigfs) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: UnmountConfigfs, found: FoundNothing) -> Outcome:  # noqa: ARG002
        if (still := needed_by_another(f"mount {inverse.target}", self._others)) is not None:
            return still
        if not configfs_mounted(host):
            return already("it is not mounted")
        # The nodes would live on, and nobody could reach them.
        left = [f"{NVMET}/{group}/{name}" for group in _GROUPS for name in names(host, f"{NVMET}/{group}")]
        if left:
            return kept(f"{left[0]} is still there")
        try:
            host.umount(inverse.target)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise HostError(f"cannot unmount {inverse.target}: {error.strerror}") from error
            return failed(f"{inverse.target} is in use", remedy=f"fuser -vm {inverse.target}; then nvlane restore")
        return PUT_BACK


class MakeConfigNodeOperation:
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, step: MakeConfigNode) -> FoundShared:
        return look_for(step.path, host.exists(step.path), self._others)

    def check(self, host: Host, step: MakeConfigNode, found: FoundShared) -> None:  # noqa: ARG002
        for _, file in step.secrets:
            read_secret(host, file)
        if not host.exists(step.path):
            return
        for name, wanted in step.attributes:
            if (now := attribute(host, f"{step.path}/{name}")) != wanted:
                raise HostError(
                    f"{step.path} is there already, and its {name} is '{now}' instead of '{wanted}'",
                    remedy="nvlane fabrics list shows who exports what; take another name or port",
                )
        for name, file in step.secrets:
            if attribute(host, f"{step.path}/{name}") != read_secret(host, file):
                raise HostError(f"{step.path} is there already with another {name}", remedy="one host has one key")

    def perform(self, host: Host, step: MakeConfigNode, found: FoundShared, keep: Keep) -> None:  # noqa: ARG002
        if host.exists(step.path):
            return
        host.mkdir(step.path, mode=0o755)
        for name, value in step.attributes:
            _write(host, step, name, value)
        for name, file in step.secrets:
            if not host.exists(f"{step.path}/{name}"):
                raise HostError(
                    "this kernel's NVMe target has no in-band authentication",
                    remedy="boot a kernel with CONFIG_NVME_TARGET_AUTH, or leave the key out",
                )
            _write(host, step, name, read_secret(host, file))

    def inverse(self, step: MakeConfigNode, found: FoundShared, result: None) -> RemoveConfigNode | None:  # noqa: ARG002
        return RemoveConfigNode(path=step.path) if found.missing else None


def _write(host: Host, step: MakeConfigNode, name: str, value: str) -> None:
    try:
        host.write_text(f"{step.path}/{name}", value)
    except OSError as error:
        words = dict(step.attributes)
        behind = f" of {words['device_path']}" if "device_path" in words else ""
        remedy = "its log (dmesg) has its own words"
        if name == "addr_tsas":
            remedy = "boot a kernel with CONFIG_NVME_TARGET_TCP_TLS (Linux 6.7), or leave TLS out"
        raise HostError(
            f"the kernel does not take {name}{behind} of {step.path}: {error.strerror}", remedy=remedy
        ) from error


class RemoveConfigNodeReversal(Idempotent):
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, inverse: RemoveConfigNode) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: RemoveConfigNode, found: FoundNothing) -> Outcome:  # noqa: ARG002
        if (still := needed_by_another(inverse.path, self._others)) is not None:
            return still
        try:
            host.rmdir(inverse.path)
        except FileNotFoundError:
            return already("it is gone")
        except OSError as error:
            # Somebody linked to it, or made a node below it, which is not ours to remove.
            if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                raise HostError(f"cannot remove {inverse.path}: {error.strerror}") from error
            return failed(
                f"{inverse.path} is still used by a node that nvlane did not make",
                remedy="remove that node, then nvlane restore",
            )
        return PUT_BACK


class LinkConfigNodeOperation:
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, step: LinkConfigNode) -> FoundShared:
        return look_for(step.path, host.exists(step.path), self._others)

    def check(self, host: Host, step: LinkConfigNode, found: FoundShared) -> None:
        """A link of this name can lead to one node only: nvmet takes the name from the node's."""

    def perform(self, host: Host, step: LinkConfigNode, found: FoundShared, keep: Keep) -> None:  # noqa: ARG002
        if host.exists(step.path):
            return
        try:
            host.symlink(step.node, step.path)
        except OSError as error:
            remedy = {
                errno.EADDRINUSE: "something else listens there: take another port",
                errno.EADDRNOTAVAIL: "no interface of this host has that address: ip address shows which there are",
                errno.EINVAL: "the address is none of this transport; the kernel's log (dmesg) has its own words",
                errno.ENODEV: "no device of this transport has that address (rdma link, /sys/class/fc_host)",
                errno.ENOENT: "no device of this transport has that address (rdma link, /sys/class/fc_host)",
            }.get(error.errno or 0, "the kernel's log (dmesg) has its own words")
            raise HostError(f"cannot {step.describe()}: {error.strerror}", remedy=remedy) from error

    def inverse(self, step: LinkConfigNode, found: FoundShared, result: None) -> RemoveConfigLink | None:  # noqa: ARG002
        return RemoveConfigLink(path=step.path, node=step.node) if found.missing else None


class RemoveConfigLinkReversal(Idempotent):
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, inverse: RemoveConfigLink) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: RemoveConfigLink, found: FoundNothing) -> Outcome:  # noqa: ARG002
        if (still := needed_by_another(inverse.path, self._others)) is not None:
            return still
        try:
            host.unlink(inverse.path)
        except FileNotFoundError:
            return already("it is gone")
        return PUT_BACK
