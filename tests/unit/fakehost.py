"""A host made of a dictionary, for readers: paths to content, `Link` to a target, `Node` to a device, None for an empty
directory. Parents come by themselves, and symbolic links are followed as the kernel follows them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from nvlane.model.errors import HostError
from nvlane.model.host import FileStat, Output


@dataclass(frozen=True)
class Link:
    """A symbolic link. `opens` is what stat finds behind it where that is not what the path says (/proc/PID/fd)."""

    target: str
    opens: object = None


@dataclass(frozen=True)
class Node:
    """A device node: 'block' or 'char', its number, and what can be read from it."""

    kind: str
    number: tuple[int, int]
    content: bytes = b""


@dataclass(frozen=True)
class Fails:
    """A file or directory whose every access fails with this errno."""

    errno: int


Content = str | bytes | Link | Node | Fails | None


@dataclass
class FakeHost:
    """`commands` maps the first word of a command to what it answers."""

    files: Mapping[str, Content]
    commands: Mapping[str, Callable[[Sequence[str]], Output]] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=lambda: {"PATH": "/usr/bin"})
    uid: int = 0
    asked: list[tuple[str, ...]] = field(default_factory=list)
    looked_at: list[str] = field(default_factory=list)

    def _look(self, path: str, depth: int = 0) -> tuple[str, Content]:
        """The path with every link resolved, and what is there ('' directories give None)."""
        if depth > 40:
            raise OSError(errno.ELOOP, "too many links", path)
        done = ""
        parts = [part for part in path.split("/") if part]
        for index, part in enumerate(parts):
            done = done.rsplit("/", 1)[0] if part == ".." else f"{done}/{part}"
            found = self.files.get(done)
            if isinstance(found, Fails):
                raise OSError(found.errno, "as the test says", path)
            if isinstance(found, Link):
                target = found.target if found.target.startswith("/") else f"{done.rsplit('/', 1)[0]}/{found.target}"
                return self._look("/".join([target, *parts[index + 1 :]]), depth + 1)
        done = done or "/"
        if done in self.files:
            return done, self.files[done]
        prefix = done.rstrip("/") + "/"
        if any(name.startswith(prefix) for name in self.files):
            return done, None
        raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def read_text(self, path: str) -> str:
        return self.read_bytes(path).decode(errors="replace")

    def read_bytes(self, path: str, *, offset: int = 0, length: int = -1) -> bytes:
        content = self._look(path)[1]
        if content is None:
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        if isinstance(content, Node):
            content = content.content
        assert isinstance(content, str | bytes)
        data = content.encode() if isinstance(content, str) else content
        return data[offset:] if length < 0 else data[offset : offset + length]

    def exists(self, path: str) -> bool:
        try:
            self._look(path)
        except OSError:
            return False
        return True

    def listdir(self, path: str) -> list[str]:
        real, content = self._look(path)
        if content is not None:
            raise NotADirectoryError(errno.ENOTDIR, "no directory", path)
        prefix = real.rstrip("/") + "/"
        return sorted({name[len(prefix) :].split("/", 1)[0] for name in self.files if name.startswith(prefix)})

    def _parent_resolved(self, path: str) -> str:
        parent, _, last = path.rstrip("/").rpartition("/")
        return f"{self._look(parent or '/')[0].rstrip('/')}/{last}"

    def readlink(self, path: str) -> str:
        content = self.files.get(self._parent_resolved(path))
        if isinstance(content, Fails):
            raise OSError(content.errno, "as the test says", path)
        if not isinstance(content, Link):
            raise OSError(errno.EINVAL if self.exists(path) else errno.ENOENT, "no link", path)
        return content.target

    def realpath(self, path: str) -> str:
        try:
            return self._look(path)[0]
        except OSError:
            return path

    def stat(self, path: str) -> FileStat:
        self.looked_at.append(path)
        there = self.files.get(self._parent_resolved(path)) if path != "/" else None
        content = there.opens if isinstance(there, Link) and there.opens is not None else self._look(path)[1]
        if isinstance(content, Fails):
            raise OSError(content.errno, "as the test says", path)
        kind, number, size = "directory", (254, 0), 4096
        if isinstance(content, Node):
            kind, number, size = content.kind, content.number, 0
        elif isinstance(content, str | bytes):
            kind, size = "file", len(content)
        return FileStat(
            kind=kind, size=size, mode=0o755, uid=0, inode=abs(hash(path)) % 9999, mtime_ns=1, device=number
        )

    def query(self, argv: Sequence[str], *, timeout: float = 60.0, input: str | None = None) -> Output:  # noqa: ARG002
        self.asked.append(tuple(argv))
        answer = self.commands.get(argv[0].rsplit("/", 1)[-1])
        if answer is None:
            raise HostError(f"no such program: {argv[0]}")
        return answer(argv)

    def environment(self, name: str) -> str | None:
        return self.variables.get(name)

    def effective_uid(self) -> int:
        return self.uid

    def free_space(self, path: str) -> int:  # noqa: ARG002
        return 1 << 30

    def writable(self, path: str) -> bool:
        return self.exists(path)
