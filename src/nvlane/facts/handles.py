"""Open handles: which process has which device node or file open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from nvlane.facts.attribute import NO_ANSWER, attribute, names
from nvlane.facts.mounts import MountEntry
from nvlane.model.host import HostReader

#: Targets that are never a node of a drive, and most of all open files: not looked at any closer. Everything else that
#: has a path is asked for its device number, for a node may have any name (mknod, containers, bind mounts).
_NEVER: Final = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/pts/", "/dev/ptmx", "/dev/tty",
    "/dev/console", "/dev/shm/", "/dev/kvm", "/dev/fuse", "/dev/net/", "/dev/dri/", "/dev/input/", "/proc/", "/memfd:",
    "/SYSV", "/dev/vhost-", "/dev/hugepages/",
)  # fmt: skip

#: File systems whose stat(2) may wait for a server for ever: files on them are not asked.
_REMOTE: Final = ("nfs", "cifs", "smb", "ceph", "fuse", "9p", "afs", "glusterfs", "lustre", "gpfs", "ocfs2", "beegfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """An open device node: `kind` 'block' or 'char', its number, its path as the process sees it. A file of sysfs (a
    BAR of a PCI function: resource0) has the kind 'sysfs'; a plain file has the kind 'file', the number of its file
    system, and its inode."""

    pid: int
    command: str
    path: str
    kind: str
    number: tuple[int, int]
    inode: int = 0

    @property
    def evidence(self) -> str:
        return f"process {self.pid} ({self.command}) has {self.path} open (/proc/{self.pid}/fd)"


def read_handles(host: HostReader, mounts: Iterable[MountEntry]) -> tuple[tuple[Handle, ...], int]:
    """Every open block node, char node, BAR and file, once for a process and path; and how many processes this user may
    not look into."""
    remote = tuple(m.target.rstrip("/") + "/" for m in mounts if m.fstype.startswith(_REMOTE) and m.target != "/")
    never = (*_NEVER, *remote)
    found: list[Handle] = []
    hidden = 0
    for pid in (name for name in names(host, "/proc") if name.isdigit()):
        try:
            descriptors = host.listdir(f"/proc/{pid}/fd")
        except PermissionError:
            hidden += 1
            continue
        except OSError as error:
            if error.errno not in NO_ANSWER:  # ENOENT, ESRCH: the process ended since the listing
                raise
            continue
        found.extend(_of_process(host, pid, descriptors, never))
    return tuple(found), hidden


def _of_process(host: HostReader, pid: str, descriptors: list[str], never: tuple[str, ...]) -> list[Handle]:
    seen: dict[tuple[str, tuple[int, int]], Handle] = {}
    for descriptor in descriptors:
        link = f"/proc/{pid}/fd/{descriptor}"
        try:
            target = host.readlink(link)
            # 'socket:[1]' and 'anon_inode:[eventfd]' have no path.
            if not target.startswith("/") or target.startswith(never):
                continue
        except OSError as error:
            if error.errno not in NO_ANSWER:  # ENOENT: closed since the listing
                raise
            continue
        kind, number, inode = _what_is_open(host, link, target)
        if kind in ("block", "char", "sysfs", "file"):
            command = attribute(host, f"/proc/{pid}/comm", "?")
            handle = Handle(pid=int(pid), command=command, path=target, kind=kind, number=number, inode=inode)
            seen[target, number] = handle
    return list(seen.values())


def _what_is_open(host: HostReader, link: str, target: str) -> tuple[str, tuple[int, int], int]:
    """Kind, number and inode of an open file, by the link of procfs, which leads to the file itself whatever its name
    is."""
    if target.startswith("/sys/"):
        return ("sysfs" if "/resource" in target else ""), (0, 0), 0
    try:
        found = host.stat(link)
    except OSError:
        # Closed meanwhile (ENOENT), or a file whose file system is dead or far away, which may answer anything (ESTALE,
        # ENOTCONN, ETIMEDOUT, EIO): a device node always answers.
        return "", (0, 0), 0
    return found.kind, found.device, found.inode if found.kind == "file" else 0
