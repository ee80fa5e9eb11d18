"""NUMA nodes: processors, memory, and how much of the free memory is in large pieces."""

from __future__ import annotations

import re
import struct

from nvlane.facts.attribute import attribute, names
from nvlane.facts.shape import NumaNode
from nvlane.model.cpus import parse_cpus
from nvlane.model.host import HostReader
from nvlane.model.size import KIB, MIB

_NODES = "/sys/devices/system/node"
_AT_PAGESZ = 6  # include/uapi/linux/auxvec.h


def read_nodes(host: HostReader) -> tuple[NumaNode, ...]:
    """Every node that is online. A kernel without NUMA shows none: then all the host is node 0."""
    contiguous = _contiguous(host)
    found = []
    for name in names(host, _NODES):
        if match := re.fullmatch(r"node(\d+)", name):
            memory = meminfo(attribute(host, f"{_NODES}/{name}/meminfo"))
            node = int(match[1])
            cpus = attribute(host, f"{_NODES}/{name}/cpulist")
            found.append(_node(node, cpus, memory, contiguous))
    if not found:
        online = attribute(host, "/sys/devices/system/cpu/online", "0")
        found.append(_node(0, online, meminfo(attribute(host, "/proc/meminfo")), contiguous))
    return tuple(sorted(found, key=lambda node: node.node))


def meminfo(text: str) -> dict[str, int]:
    """'MemTotal:  1 kB' lines, also with 'Node 0' before them, to bytes; counts of pages stay counts."""
    values = {}
    for match in re.finditer(r"^(?:Node \d+ )?(\w+(?:\(\w+\))?):\s+(\d+)( kB)?$", text, re.MULTILINE):
        values[match[1]] = int(match[2]) * (KIB if match[3] else 1)
    return values


def page_size(host: HostReader) -> int:
    """The kernel's base page in bytes, from the auxiliary vector; 4096 where that cannot be read."""
    try:
        vector = host.read_bytes("/proc/self/auxv")
    except OSError:
        return 4096  # procfs mounted with hidepid, or none: every x86 kernel has this size
    for kind, value in struct.iter_unpack("=QQ", vector[: len(vector) // 16 * 16]):
        if kind == _AT_PAGESZ:
            return int(value)
    return 4096


def _node(node: int, cpus: str, memory: dict[str, int], contiguous: dict[int, int]) -> NumaNode:
    return NumaNode(
        node=node,
        cpus=parse_cpus(cpus) if cpus else frozenset(),  # a node of memory only has an empty list
        memory_total=memory.get("MemTotal", 0),
        memory_free=memory.get("MemFree", 0),
        free_contiguous=contiguous.get(node, 0),
    )


def _contiguous(host: HostReader) -> dict[int, int]:
    """Bytes in free blocks of 2 MiB or more, by node: 'Node 0, zone Normal 12 3 …' has one count an order."""
    page = page_size(host)
    found: dict[int, int] = {}
    zones = re.compile(r"^Node (\d+), zone +\w+((?: +\d+)+) *$", re.MULTILINE)
    for match in zones.finditer(attribute(host, "/proc/buddyinfo")):
        blocks = ((int(count), page << order) for order, count in enumerate(match[2].split()))
        found[int(match[1])] = found.get(int(match[1]), 0) + sum(c * size for c, size in blocks if size >= 2 * MIB)
    return found
