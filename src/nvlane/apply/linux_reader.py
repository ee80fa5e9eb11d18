"""Reading the real host: the half of the Linux host that changes nothing."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Final

from nvlane.apply import keyring as keys
from nvlane.apply.process import run
from nvlane.model.host import FileStat, Output

_CHUNK: Final = 1 << 16
#: Bytes: as many as anybody may ask for (/proc/sys/fs/pipe-max-size), and several times what QEMU says of itself.
_PIPE: Final = 1 << 20

_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
    stat.S_IFSOCK: "socket",
}


class LinuxReader:
    """The running Linux host, read only: implements `model.host.HostReader`.

    Errors are OSError as the kernel gives them, and HostError for a program that is not there.
    """

    def read_text(self, path: str) -> str:
        """The whole file. Bytes that are no UTF-8 (some drives have them in their model) are replaced, not refused."""
        return self.read_bytes(path).decode(errors="replace")

    def read_bytes(self, path: str, *, offset: int = 0, length: int = -1) -> bytes:
        """`length` bytes from `offset` (-1: to the end); fewer only at the end of the file.

        Plain read(2) until nothing is left: files of procfs say that their size is 0, and a seq_file gives less than
        was asked for.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            if offset:
                os.lseek(descriptor, offset, os.SEEK_SET)
            parts: list[bytes] = []
            left = length
            while left != 0:
                part = os.read(descriptor, _CHUNK if left < 0 else min(left, 1 << 20))
                if not part:
                    break
                parts.append(part)
                left -= len(part) if left > 0 else 0
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def exists(self, path: str) -> bool:
        return os.access(path, os.F_OK)

    def listdir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))  # noqa: PTH208 - names, and several thousand times in one survey

    def readlink(self, path: str) -> str:
        return os.readlink(path)  # noqa: PTH115 - as above

    def realpath(self, path: str) -> str:
        return os.path.realpath(path)

    def stat(self, path: str) -> FileStat:
        found = os.stat(path)  # noqa: PTH116 - as above
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "other")
        number = found.st_rdev if kind in ("block", "char") else found.st_dev
        return FileStat(
            kind=kind,
            size=found.st_size,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            inode=found.st_ino,
            mtime_ns=found.st_mtime_ns,
            device=(os.major(number), os.minor(number)),
            allocated=found.st_blocks * 512,
            gid=found.st_gid,
        )

    def query(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Output:
        """Run a command that only reads; any exit status is an answer. HostError when there is no such program,
        CommandFailed when `timeout` seconds are over."""
        # QEMU that is told to quit drops the answers that still wait for room in the pipe (monitor/monitor.c).
        done = run(argv, timeout=timeout, check=False, input=input, env={"LC_ALL": "C"}, room=_PIPE if input else -1)
        return Output(status=done.returncode, stdout=done.stdout, stderr=done.stderr)

    def find_key(self, keyring: str, kind: str, description: str) -> int:
        return keys.find_key(keyring, kind, description)

    def environment(self, name: str) -> str | None:
        return os.environ.get(name)

    def effective_uid(self) -> int:
        return os.geteuid()

    def free_space(self, path: str) -> int:
        """Bytes that this process may still write on the file system of `path` (statvfs(3))."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def writable(self, path: str) -> bool:
        """Whether this process may write there, by its effective rights (a read-only file system counts)."""
        return os.access(path, os.W_OK, effective_ids=True)
