"""The block layer as a graph: which device stands on which.

Edges come from the kernel's own bookkeeping (`holders`, written by bd_link_disk_holder of md, dm, bcache, drbd), from
partitions, and from loop devices, which hold their backing device through a file and are in no `holders`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nvlane.facts.attribute import NO_ANSWER, attribute, device_number, names
from nvlane.model.host import HostReader

_CLASS = "/sys/class/block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One block device or partition. `disk` is the disk of a partition, '' for a disk."""

    name: str
    number: tuple[int, int]
    disk: str
    holders: tuple[str, ...]
    dm_uuid: str = ""
    dm_name: str = ""
    bcache: bool = False
    backing_file: str = ""

    @property
    def sysfs(self) -> str:
        return f"{_CLASS}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Above:
    """A device that stands on another: how it was found out (`evidence`), step by step from the lowest (`chain`)."""

    block: Block
    below: Block
    evidence: str
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Every block device of the host."""

    by_name: Mapping[str, Block]
    by_number: Mapping[tuple[int, int], str]
    loops: Mapping[str, tuple[str, ...]]  # block name -> loop devices on it

    def parts(self, name: str) -> tuple[str, ...]:
        """The disk and its partitions."""
        return (name, *sorted(block.name for block in self.by_name.values() if block.disk == name))

    def above(self, name: str) -> Iterator[Above]:
        """Everything that stands on a disk or partition, however high, nearest first. Partitions of the device itself
        are not above it; those of devices on it (of a loop or md device) are."""
        seen = {name}
        queue: list[tuple[Block, tuple[str, ...]]] = [(self.by_name[name], (name,))] if name in self.by_name else []
        while queue:
            below, chain = queue.pop(0)
            for upper, evidence in self._directly_above(below, partitions=below.name != name):
                if upper not in seen:
                    seen.add(upper)
                    # A holder without a node of its own is a holder all the same.
                    block = self.by_name.get(upper) or Block(name=upper, number=(0, 0), disk="", holders=())
                    yield Above(block=block, below=below, evidence=evidence, chain=(*chain, upper))
                    queue.append((block, (*chain, upper)))

    def _directly_above(self, below: Block, *, partitions: bool) -> Iterator[tuple[str, str]]:
        for holder in below.holders:
            yield holder, f"{below.sysfs}/holders/{holder}"
        for loop in self.loops.get(below.name, ()):
            yield loop, f"{_CLASS}/{loop}/loop/backing_file says {self.by_name[loop].backing_file}"
        if partitions:
            for part in self.parts(below.name)[1:]:
                yield part, f"{_CLASS}/{part} is a partition of {below.name}"

    def named(self, host: HostReader, path: str) -> str:
        """The block device that a path stands for, '' for none. A path of another mount namespace, or of a node that
        was removed, is known by its last part; a name without '/' is a block name already."""
        if "/" not in path:
            return path if path in self.by_name else ""
        try:
            found = host.stat(path)
        except OSError as error:
            if error.errno not in NO_ANSWER:
                raise
            last = path.removesuffix(" (deleted)").rsplit("/", 1)[-1]
            mapped = (b.name for b in self.by_name.values() if b.dm_name and b.dm_name == last)
            return last if last in self.by_name else next(mapped, "")
        return self.by_number.get(found.device, "") if found.kind == "block" else ""


def read_blocks(host: HostReader) -> Blocks:
    """The graph as it is now."""
    blocks = {name: block for name in names(host, _CLASS) if (block := _read(host, name)) is not None}
    graph = Blocks(by_name=blocks, by_number={block.number: name for name, block in blocks.items()}, loops={})
    loops: dict[str, tuple[str, ...]] = {}
    for block in blocks.values():
        below = graph.named(host, block.backing_file) if block.backing_file else ""
        if below:
            loops[below] = (*loops.get(below, ()), block.name)
    return Blocks(by_name=blocks, by_number=graph.by_number, loops=loops)


def _read(host: HostReader, name: str) -> Block | None:
    base = f"{_CLASS}/{name}"
    number = device_number(attribute(host, f"{base}/dev"))
    if number is None:
        return None  # the hidden paths of a multipath namespace (nvme0c0n1) have no node
    disk = ""
    if host.exists(f"{base}/partition"):
        disk = host.readlink(base).rstrip("/").rsplit("/", 2)[-2]
    is_dm = name.startswith("dm-")
    return Block(
        name=name,
        number=number,
        disk=disk,
        holders=tuple(names(host, f"{base}/holders")),
        dm_uuid=attribute(host, f"{base}/dm/uuid") if is_dm else "",
        dm_name=attribute(host, f"{base}/dm/name") if is_dm else "",
        bcache=host.exists(f"{base}/bcache"),
        backing_file=attribute(host, f"{base}/loop/backing_file") if name.startswith("loop") else "",
    )
