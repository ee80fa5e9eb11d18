"""Hugepage pools by node and size, the default size, and where hugetlbfs is mounted."""

from __future__ import annotations

import re
from collections.abc import Iterable

from nvlane.facts.attribute import attribute, names, number
from nvlane.facts.mounts import MountEntry
from nvlane.facts.numa import meminfo
from nvlane.facts.shape import HugepagePool, Mount
from nvlane.model.host import HostReader
from nvlane.model.size import KIB

_NODES = "/sys/devices/system/node"
_GLOBAL = "/sys/kernel/mm/hugepages"


def read_pools(host: HostReader) -> tuple[HugepagePool, ...]:
    """The pool of every page size on every node; on a kernel without NUMA the global pools, as node 0."""
    roots = [
        (int(match[1]), f"{_NODES}/{name}/hugepages")
        for name in names(host, _NODES)
        if (match := re.fullmatch(r"node(\d+)", name))
    ]
    pools = [pool for node, root in roots or [(0, _GLOBAL)] for pool in _pools(host, node, root)]
    return tuple(sorted(pools, key=lambda pool: (pool.node, pool.page_size)))


def read_reserved(host: HostReader) -> dict[int, int]:
    """Page size to the number of pages that mappings were promised and have not touched yet (resv_hugepages).

    They count as free in the pools, and cannot be had. The kernel keeps this number for the host, not for a node.
    """
    return {
        size: number(host, f"{_GLOBAL}/{name}/resv_hugepages")
        for name in names(host, _GLOBAL)
        if (size := _page_size(name))
    }


def read_default_size(host: HostReader) -> int:
    """Bytes of a page for those who name no size; 0 on a kernel without hugepages."""
    return meminfo(attribute(host, "/proc/meminfo")).get("Hugepagesize", 0)


def hugetlbfs_mounts(mounts: Iterable[MountEntry]) -> tuple[Mount, ...]:
    """The hugetlbfs among the mounts that this process sees; their options hold 'pagesize=2M'."""
    return tuple(
        Mount(target=m.target, fstype=m.fstype, source=m.source, options=m.options)
        for m in mounts
        if m.fstype == "hugetlbfs"
    )


def _pools(host: HostReader, node: int, root: str) -> list[HugepagePool]:
    return [
        HugepagePool(
            node=node,
            page_size=size,
            total=number(host, f"{root}/{name}/nr_hugepages"),
            free=number(host, f"{root}/{name}/free_hugepages"),
            surplus=number(host, f"{root}/{name}/surplus_hugepages"),
        )
        for name in names(host, root)
        if (size := _page_size(name))
    ]


def _page_size(name: str) -> int:
    match = re.fullmatch(r"hugepages-(\d+)kB", name)
    return int(match[1]) * KIB if match else 0
