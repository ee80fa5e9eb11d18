"""Marks: every use of a block node by something that is not itself a block device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nvlane.facts.attribute import NO_ANSWER
from nvlane.facts.blocks import Blocks
from nvlane.facts.handles import Handle
from nvlane.facts.kernel_claims import KernelClaim
from nvlane.facts.mounts import (
    MountEntry,
    Mounts,
    mount_of,
    read_btrfs,
    read_live_filesystems,
    read_swaps,
)
from nvlane.facts.shape import UseKind
from nvlane.model.host import HostReader

#: A device can have hundreds of bind mounts or readers: so many are named, the rest is counted.
_NAMED: Final = 4
#: How the evidence of a device ends that bcache knows, whether or not it has made a disk of it.
BCACHE_REGISTERED: Final = ": registered with bcache"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One use of one node, and what says so."""

    kind: UseKind
    evidence: str


def mark_nodes(
    host: HostReader,
    blocks: Blocks,
    mounts: Mounts,
    handles: Iterable[Handle],
    claims: Iterable[KernelClaim],
    zfs: Mapping[str, str],
) -> tuple[dict[str, tuple[Mark, ...]], list[str]]:
    """Block name to its marks; and sentences about what names a device that is not known here."""
    marks: dict[str, list[Mark]] = {}
    btrfs = read_btrfs(host)
    _mark_mounts(host, blocks, mounts, btrfs, zfs, marks)
    strangers = _mark_swaps(host, blocks, marks)
    for name, uuid in btrfs.items():
        evidence = f"/sys/fs/btrfs/{uuid}/devices/{name}: a member of a btrfs that is in use"
        marks.setdefault(name, []).append(Mark(kind=UseKind.BTRFS, evidence=evidence))
    for name, evidence in zfs.items():
        marks.setdefault(name, []).append(Mark(kind=UseKind.ZFS, evidence=evidence))
    for block in blocks.by_name.values():
        if block.bcache and not re.fullmatch(r"bcache\d+", block.name):
            evidence = f"{block.sysfs}/bcache{BCACHE_REGISTERED}"
            marks.setdefault(block.name, []).append(Mark(kind=UseKind.BCACHE, evidence=evidence))
    for claim in claims:
        if name := blocks.named(host, claim.device):
            marks.setdefault(name, []).append(Mark(kind=UseKind.EXCLUSIVE, evidence=claim.evidence))
    _mark_handles(blocks, handles, marks)
    return {name: tuple(dict.fromkeys(found)) for name, found in marks.items()}, strangers


def _mark_mounts(
    host: HostReader,
    blocks: Blocks,
    mounts: Mounts,
    btrfs: Mapping[str, str],
    zfs: Mapping[str, str],
    marks: dict[str, list[Mark]],
) -> None:
    nodes_of = _Nodes(host, blocks, btrfs, zfs)
    roots: dict[str, list[str]] = {}
    places: dict[str, list[str]] = {}
    under_root = {id(mount) for mount in _root_mounts(host, mounts)}
    for mount in mounts.everywhere:
        said = f"{mount.target} ({mount.fstype}, /proc/{mount.pid}/mountinfo)"
        for node in nodes_of(mount):
            (roots if id(mount) in under_root else places).setdefault(node, []).append(said)
    hidden: dict[str, str] = {}
    for node, fstype, evidence in read_live_filesystems(host, blocks.by_name):
        if node not in roots and node not in places:
            hidden.setdefault(node, f"{evidence}: this {fstype} is in use, mounted where no process shows it")
    for node, words in hidden.items():
        marks.setdefault(node, []).append(Mark(kind=UseKind.MOUNT, evidence=words))
    for node in roots:
        marks.setdefault(node, []).append(Mark(kind=UseKind.ROOT, evidence=f"mounted on {_some(roots[node])}"))
    for node in places.keys() - roots.keys():
        marks.setdefault(node, []).append(Mark(kind=UseKind.MOUNT, evidence=f"mounted on {_some(places[node])}"))


class _Nodes:
    """Which block nodes a mount stands on: by its device number, by the members of its file system where that has none
    (btrfs, ZFS), and by the devices that it names."""

    def __init__(self, host: HostReader, blocks: Blocks, btrfs: Mapping[str, str], zfs: Mapping[str, str]) -> None:
        self._host, self._blocks, self._btrfs, self._zfs = host, blocks, btrfs, zfs
        self._named: dict[str, str] = {}

    def __call__(self, mount: MountEntry) -> tuple[str, ...]:
        found = {self._blocks.by_number[mount.number]} if mount.number in self._blocks.by_number else set()
        found.update(node for source in mount.sources if (node := self._node(source)))
        if mount.fstype == "btrfs":
            uuids = {self._btrfs[node] for node in found if node in self._btrfs}
            found.update(node for node, uuid in self._btrfs.items() if uuid in uuids)
        if mount.fstype == "zfs":
            pool = mount.source.split("/", 1)[0]
            found.update(node for node, evidence in self._zfs.items() if f"the pool {pool} has" in evidence)
        return tuple(sorted(found))

    def _node(self, source: str) -> str:
        # A bind mount's or overlay's source may be any path: only device nodes are asked.
        if source not in self._named:
            self._named[source] = self._blocks.named(self._host, source) if source.startswith("/dev/") else ""
        return self._named[source]


def _root_mounts(host: HostReader, mounts: Mounts) -> list[MountEntry]:
    """The mounts that make up the host's root: those on '/' of process 1 and of this process, what has the device
    number of '/', and the ones that an overlay on '/' takes its layers from."""
    try:
        number = host.stat("/").device
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        number = (0, 0)
    roots = [
        mount
        for mount in mounts.everywhere
        if (mount.target == "/" and mount.pid in ("self", "1")) or (mount.number == number and number[0])
    ]
    for overlay in [mount for mount in roots if mount.fstype == "overlay"]:
        others = [mount for mount in mounts.everywhere if mount.target != "/"]
        for layers in re.findall(r"(?:lowerdir|upperdir|workdir)\+?=([^,]+)", overlay.options):
            for directory in layers.split(":"):
                if below := mount_of(directory, others):
                    roots.append(below)
    return roots


def _mark_swaps(host: HostReader, blocks: Blocks, marks: dict[str, list[Mark]]) -> list[str]:
    strangers = []
    for path, kind in read_swaps(host):
        if kind != "partition":
            continue  # a swap file: the file system that it is on is mounted, and is marked so
        if name := blocks.named(host, path):
            marks.setdefault(name, []).append(Mark(kind=UseKind.SWAP, evidence=f"/proc/swaps says {path}"))
        else:
            strangers.append(f"/proc/swaps names {path}, which is no block device that is known here")
    return strangers


def _mark_handles(blocks: Blocks, handles: Iterable[Handle], marks: dict[str, list[Mark]]) -> None:
    by_node: dict[str, list[str]] = {}
    for handle in handles:
        if handle.kind == "block" and handle.number in blocks.by_number:
            by_node.setdefault(blocks.by_number[handle.number], []).append(handle.evidence)
    for node, said in by_node.items():
        for evidence in said[:_NAMED]:
            marks.setdefault(node, []).append(Mark(kind=UseKind.OPEN, evidence=evidence))
        if len(said) > _NAMED:
            rest = f"{len(said) - _NAMED} further processes have it open"
            marks.setdefault(node, []).append(Mark(kind=UseKind.OPEN, evidence=rest))


def _some(said: Sequence[str]) -> str:
    unique = list(dict.fromkeys(said))
    return "; ".join(unique[:_NAMED]) + (f"; and {len(unique) - _NAMED} more" if len(unique) > _NAMED else "")
