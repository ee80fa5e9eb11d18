"""A tree of files in memory: directories, files, links, device nodes, sockets, and control files that do something."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

_MAX_LINKS: Final = 40


@dataclass(slots=True, kw_only=True)
class Node:
    """Any node. `kind` as in `model.host.FileStat`, or 'link'; times are ticks of the tree's own clock."""

    kind: str
    inode: int
    mode: int = 0o600
    uid: int = 0
    gid: int = 0
    data: bytes = b""
    size: int = 0
    mtime_ns: int = 0
    target: str = ""
    device: tuple[int, int] = (0, 1)
    children: dict[str, Node] = field(default_factory=dict)
    read: Callable[[], str] | None = None
    write: Callable[[str], None] | None = None


class Tree:
    """Paths are absolute. Errors are OSError with the errno that Linux gives."""

    def __init__(self) -> None:
        self._inodes = 1
        self._ticks = 0
        self.root = self._new("directory", mode=0o755)

    def find(self, path: str, *, follow: bool = True) -> Node:
        return self._walk(path, follow)[1]

    def realpath(self, path: str) -> str:
        try:
            return self._walk(path, True)[0]
        except OSError:
            return path

    def exists(self, path: str) -> bool:
        try:
            self.find(path)
        except OSError:
            return False
        return True

    def directory(self, path: str) -> Node:
        node = self.find(path)
        if node.kind != "directory":
            raise _error(errno.ENOTDIR, path)
        return node

    def add_directory(self, path: str, *, mode: int = 0o755) -> Node:
        """A directory with all its parents; the one that is there when there is one."""
        node, walked = self.root, ""
        for part in _parts(path):
            walked += f"/{part}"
            child = node.children.get(part)
            if child is not None and child.kind == "link":
                child = self.find(walked)
            if child is None:
                child = node.children[part] = self._new("directory", mode=mode)
            node = child
        return node

    def add(self, path: str, kind: str, *, data: bytes = b"", size: int = 0, mode: int = 0o600) -> Node:
        """A new node; its parent must be there, its name must be free."""
        parent, name = self._slot(path)
        if name in parent.children:
            raise _error(errno.EEXIST, path)
        node = parent.children[name] = self._new(kind, mode=mode)
        node.data, node.size = data, size or len(data)
        return node

    def add_text(self, path: str, text: str) -> Node:
        """A file with its parents, over one that is there: for building the picture of a host."""
        self.add_directory(_parent(path))
        parent, name = self._slot(path)
        node = parent.children[name] = self._new("file", mode=0o644)
        node.data, node.size = text.encode(), len(text.encode())
        return node

    def add_control(
        self, path: str, *, read: Callable[[], str] | None = None, write: Callable[[str], None] | None = None
    ) -> Node:
        node = self.add_text(path, "")
        node.read, node.write = read, write
        return node

    def add_link(self, path: str, target: str) -> None:
        self.add_directory(_parent(path))
        self.add(path, "link").target = target

    def remove(self, path: str) -> None:
        """Remove a node with everything under it; fine when it is not there."""
        try:
            parent, name = self._slot(path)
        except OSError:
            return
        parent.children.pop(name, None)

    def unlink(self, path: str) -> None:
        parent, name = self._slot(path)
        node = parent.children.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if node.kind == "directory":
            raise _error(errno.EISDIR, path)
        del parent.children[name]

    def rmdir(self, path: str) -> None:
        parent, name = self._slot(path)
        node = parent.children.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if node.kind != "directory":
            raise _error(errno.ENOTDIR, path)
        if node.children:
            raise _error(errno.ENOTEMPTY, path)
        del parent.children[name]

    def link(self, source: str, target: str) -> None:
        node = self.find(source, follow=False)
        parent, name = self._slot(target)
        if name in parent.children:
            raise _error(errno.EEXIST, target)
        parent.children[name] = node

    def touch(self, node: Node) -> None:
        self._ticks += 1
        node.mtime_ns = self._ticks

    def dump(self) -> dict[str, str]:
        """Every path -> what stands there, for comparing two states; inode numbers and times are left out."""
        return dict(self._dump("", self.root))

    def _dump(self, path: str, node: Node) -> Iterator[tuple[str, str]]:
        match node.kind:
            case "directory":
                yield path or "/", f"directory {node.mode:o}"
                for name in sorted(node.children):
                    yield from self._dump(f"{path}/{name}", node.children[name])
            case "link":
                yield path, f"-> {node.target}"
            case kind:
                text = node.read() if node.read is not None else node.data.decode(errors="replace")
                yield path, f"{kind} {node.mode:o} {node.size} {text}"

    def _new(self, kind: str, *, mode: int) -> Node:
        self._inodes += 1
        self._ticks += 1
        return Node(kind=kind, inode=self._inodes, mode=mode, mtime_ns=self._ticks)

    def _slot(self, path: str) -> tuple[Node, str]:
        name = path.rpartition("/")[2]
        return self.directory(_parent(path)), name

    def _walk(self, path: str, follow: bool) -> tuple[str, Node]:
        left = _parts(path)
        walked, node, links = "", self.root, 0
        while left:
            if node.kind != "directory":
                raise _error(errno.ENOTDIR, path)
            part = left.pop(0)
            if part == "..":
                walked, node = self._walk(_parent(walked), True)
                walked = "" if walked == "/" else walked
                continue
            child = node.children.get(part)
            if child is None:
                raise _error(errno.ENOENT, path)
            if child.kind == "link" and (left or follow):
                links += 1
                if links > _MAX_LINKS:
                    raise _error(errno.ELOOP, path)
                if child.target.startswith("/"):
                    walked, node = "", self.root
                left = [*_parts(child.target), *left]
                continue
            walked, node = f"{walked}/{part}", child
        return walked or "/", node


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or "/"


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
