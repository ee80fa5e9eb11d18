"""The two ports through which everything sees a host.

`HostReader` reads; facts are made with nothing else. `Host` adds effects; only `apply` holds one. The real host is
`apply.linux.LinuxHost`; the one for tests is `apply.memory.MemoryHost`, itself checked against the real one in the lab.

Paths are absolute strings, as the kernel documents them (`/sys/bus/pci/...`). A missing file raises FileNotFoundError,
any other failure OSError: callers decide which errno is fine and say why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a finished command left; `status` is negative when a signal killed it."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileStat:
    """The parts of stat(2) that identify a file: `kind` is 'file', 'directory', 'block', 'char', 'socket' or 'other'.

    `device` is (major, minor) of the node itself for block and char nodes, else of the file system. Size in bytes.
    """

    kind: str
    size: int
    mode: int
    uid: int
    inode: int
    mtime_ns: int
    device: tuple[int, int]
    allocated: int = 0
    gid: int = 0


class HostReader(Protocol):
    """Reading a host. No call changes anything."""

    def read_text(self, path: str) -> str: ...
    def read_bytes(self, path: str, *, offset: int = 0, length: int = -1) -> bytes: ...
    def exists(self, path: str) -> bool: ...
    def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted. A directory that is not there raises FileNotFoundError."""
        ...

    def readlink(self, path: str) -> str: ...
    def realpath(self, path: str) -> str: ...
    def stat(self, path: str) -> FileStat: ...
    def query(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Output:
        """Run a command that only reads (`blkid`, `qemu-system-x86_64 -version`), with `input` on its stdin; any exit
        status is an answer. Raises HostError when there is no such program, CommandFailed past the deadline."""
        ...

    def free_space(self, path: str) -> int:
        """Bytes that may still be written on the file system of `path`."""
        ...

    def writable(self, path: str) -> bool:
        """Whether this process may write to what is at `path`."""
        ...

    def find_key(self, keyring: str, kind: str, description: str) -> int:
        """The number of a key in one of the kernel's keyrings ('.nvme', or '@u' for the user's); 0 for none."""
        ...

    def environment(self, name: str) -> str | None: ...
    def effective_uid(self) -> int: ...


class Host(HostReader, Protocol):
    """Reading and changing a host. Every call is one change with an obvious inverse; the journal knows which."""

    def write_text(self, path: str, text: str) -> None:
        """Write a control file (sysfs, procfs, configfs) in one write(2)."""
        ...

    def create_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """Create a new file; FileExistsError when there is one."""
        ...

    def create_sparse(self, path: str, size: int, *, mode: int = 0o600) -> None: ...
    def mkdir(self, path: str, *, mode: int = 0o700) -> None: ...
    def chown(self, path: str, uid: int, gid: int) -> None: ...
    def rmdir(self, path: str) -> None: ...
    def unlink(self, path: str) -> None: ...
    def mount(self, source: str, target: str, fstype: str, options: str) -> None: ...
    def umount(self, target: str) -> None: ...
    def load_module(self, name: str) -> None: ...
    def unload_module(self, name: str) -> None: ...
    def claim_exclusively(self, block_device: str) -> bool:
        """Whether open(O_RDONLY | O_EXCL) succeeds: the kernel refuses it (EBUSY) for anything that holds the device,
        in every mount namespace. The descriptor is closed at once."""
        ...

    def link(self, source: str, target: str) -> None:
        """Give a file that is there a second name; FileExistsError when the name is taken, never an overwrite."""
        ...

    def symlink(self, node: str, path: str) -> None:
        """Make the symbolic link `path` to `node`; FileExistsError when the name is taken."""
        ...

    def converse(self, path: str, text: str) -> str:
        """Write one command to a control device and read its answer on the same descriptor, as /dev/nvme-fabrics wants
        it. The command may hold a secret: it is in no argument list and in no error."""
        ...

    def add_key(self, keyring: str, kind: str, description: str, payload: bytes) -> None: ...
    def unlink_key(self, keyring: str, number: int) -> None: ...
    def listen(self, path: str) -> int:
        """A UNIX stream socket (mode 0600) that listens on `path`: its descriptor, to be handed over and closed."""
        ...

    def close(self, descriptor: int) -> None: ...
    def spawn(
        self,
        argv: Sequence[str],
        *,
        log: str,
        descriptors: Mapping[int, int],
        environment: Mapping[str, str],
        memlock: int | None = None,
    ) -> int:
        """Start a daemon that outlives nvlane; its process id. `descriptors` maps a number in it to one of ours,
        `memlock` is its locked-memory limit in bytes."""
        ...

    def signal(self, pid: int, start_time: int, number: int) -> bool:
        """Send a signal to exactly this process; False when it is no more (a number that was given again is another
        process: `start_time` tells, in clock ticks since boot as field 22 of /proc/PID/stat has it)."""
        ...

    def wait_end(self, pid: int, start_time: int, *, deadline: float) -> bool:
        """Wait until this process has ended, at most `deadline` seconds."""
        ...

    def command(self, argv: Sequence[str], *, timeout: float = 120.0) -> Output:
        """Run a command that changes something (`qemu-img create`); raises CommandFailed unless it exits 0."""
        ...

    def wait_until(self, condition: Callable[[], bool], *, deadline: float) -> bool:
        """Look again and again until `condition` holds, at most `deadline` seconds; whether it held. Only for what the
        kernel has no event for (sysfs attributes)."""
        ...
