"""Mounts of every mount namespace that a process is in, and file systems that are alive without a mount to be seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nvlane.facts.attribute import NO_ANSWER, attribute, device_number, link_name, names
from nvlane.model.host import HostReader

#: File systems that never stand on a block device: most lines of a mountinfo, skipped for speed.
_NO_DEVICE: Final = frozenset(
    {
        "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs",
        "fusectl", "mqueue", "nsfs", "proc", "pstore", "ramfs", "rpc_pipefs", "securityfs", "sysfs", "tmpfs", "tracefs",
    }
)  # fmt: skip

#: File systems that name a directory in sysfs or procfs after the block device of each superblock that is alive.
#: It stays while anything keeps the file system busy: a mount namespace that no process shows, or 'umount -l'.
_ALIVE: Final = {
    "ext4": "/sys/fs/ext4", "xfs": "/sys/fs/xfs", "f2fs": "/sys/fs/f2fs", "nilfs2": "/sys/fs/nilfs2",
    "erofs": "/sys/fs/erofs", "journal of ext4": "/proc/fs/jbd2",
}  # fmt: skip

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class MountEntry:
    """One line of a mountinfo (proc_pid_mountinfo(5)). `number` is (major, minor) of the superblock: major 0 for file
    systems without a device of their own, btrfs among them. `pid` is a process that sees the mount."""

    number: tuple[int, int]
    target: str
    fstype: str
    source: str
    options: str
    pid: str

    @property
    def sources(self) -> tuple[str, ...]:
        """Every device that the line names: the source (bcachefs joins several with ':') and those of options, as
        an external log of xfs."""
        named = re.findall(r"(?:logdev|rtdev|journal_path|jdev|device)=(/[^,]+)", self.options)
        return tuple(part for part in (*self.source.split(":"), *named) if part.startswith("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounts:
    """What is mounted: by this process ('own', all of it), and anywhere. `hidden` counts the processes whose mount
    namespace this user may not see."""

    own: tuple[MountEntry, ...]
    everywhere: tuple[MountEntry, ...]
    hidden: int


def read_mounts(host: HostReader) -> Mounts:
    """The mounts of this process, and those of each mount namespace that some process is in, read once."""
    own = parse_mountinfo(attribute(host, "/proc/self/mountinfo"), "self", keep_all=True)
    namespaces, hidden = _namespaces(host)
    found: dict[tuple[object, ...], MountEntry] = {}
    for mount in own:
        if mount.fstype not in _NO_DEVICE:
            found[mount.number, mount.target, mount.source] = mount
    for pids in namespaces.values():
        for mount in _of_namespace(host, pids):
            found.setdefault((mount.number, mount.target, mount.source), mount)
    return Mounts(own=own, everywhere=tuple(found.values()), hidden=hidden)


def parse_mountinfo(text: str, pid: str, *, keep_all: bool = False) -> tuple[MountEntry, ...]:
    """The lines of a mountinfo; without `keep_all` only those that may stand on a block device."""
    found = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not dash or len(fields) < 6 or len(tail) < 2 or (tail[0] in _NO_DEVICE and not keep_all):
            continue
        if (number := device_number(fields[2])) is not None:
            found.append(
                MountEntry(
                    number=number,
                    target=unescape(fields[4]),
                    fstype=tail[0],
                    source=unescape(tail[1]),
                    options=",".join((fields[5], *(unescape(part) for part in tail[2:3]))),
                    pid=pid,
                )
            )
    return tuple(found)


def unescape(text: str) -> str:
    """'\\040' to a blank: procfs escapes blanks, tabs, newlines and backslashes in octal (fs/seq_file.c)."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text) if "\\" in text else text


def mount_of(path: str, mounts: Iterable[MountEntry]) -> MountEntry | None:
    """The mount that a resolved absolute path is on: the longest target above it, the last one of equals (which hides
    those before it)."""
    best: MountEntry | None = None
    for mount in mounts:
        prefix = mount.target.rstrip("/") + "/"
        if (path + "/").startswith(prefix) and (best is None or len(mount.target) >= len(best.target)):
            best = mount
    return best


def read_swaps(host: HostReader) -> tuple[tuple[str, str], ...]:
    """(path, kind) of each swap area of /proc/swaps; kind is 'partition' for any block device, else 'file'."""
    lines = (line.split() for line in attribute(host, "/proc/swaps").splitlines()[1:])
    return tuple((unescape(fields[0]), fields[1]) for fields in lines if len(fields) >= 2)


def read_live_filesystems(host: HostReader, blocks: Mapping[str, object]) -> tuple[tuple[str, str, str], ...]:
    """(block name, file system, where it was read) of every superblock that is alive, of the kinds that tell."""
    found = []
    for fstype, directory in _ALIVE.items():
        for name in names(host, directory):
            device = name.replace("!", "/") if name in blocks else re.sub(r"-\d+$", "", name)
            if device in blocks:
                found.append((device, fstype, f"{directory}/{name}"))
    for uuid in names(host, "/sys/fs/bcachefs"):
        for member in names(host, f"/sys/fs/bcachefs/{uuid}"):
            if device := link_name(host, f"/sys/fs/bcachefs/{uuid}/{member}/block"):
                found.append((device, "bcachefs", f"/sys/fs/bcachefs/{uuid}/{member}"))
    return tuple(found)


def read_btrfs(host: HostReader) -> dict[str, str]:
    """Block name to the UUID of the btrfs that it is a member of, for those that are in use now."""
    return {
        device: uuid for uuid in names(host, "/sys/fs/btrfs") for device in names(host, f"/sys/fs/btrfs/{uuid}/devices")
    }


def _namespaces(host: HostReader) -> tuple[dict[str, list[str]], int]:
    """Mount namespace to the processes in it, and how many processes would not say. Process 1 comes first: its '/' is
    the root of the host."""
    found: dict[str, list[str]] = {}
    hidden = 0
    for pid in sorted((n for n in names(host, "/proc") if n.isdigit()), key=int):
        try:
            found.setdefault(host.readlink(f"/proc/{pid}/ns/mnt"), []).append(pid)
        except PermissionError:
            hidden += 1  # ptrace access is needed: an unprivileged user sees only their own processes
        except OSError as error:
            if error.errno not in NO_ANSWER:  # ENOENT, ESRCH: the process ended since the listing
                raise
    return found, hidden


def _of_namespace(host: HostReader, pids: list[str]) -> tuple[MountEntry, ...]:
    """The mounts of a namespace by the first of its processes that is still there (a zombie gives EINVAL)."""
    for pid in pids:
        if text := attribute(host, f"/proc/{pid}/mountinfo"):
            return parse_mountinfo(text, pid)
    return ()
