"""Hugepages of one NUMA node: added to what is there, and as many taken away again.

The counts are relative, since others use the same pool. Each inverse therefore journals the count that it started
from: what a try that was cut short has done already is the difference to the count of now.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from nvlane.apply.operations.found import FoundPool
from nvlane.apply.operations.operation import PUT_BACK, Keep, Outcome, already, failed
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.model.size import GIB, KIB, MIB, format_size
from nvlane.plan.step import ReleaseHugepages, ReserveHugepages

#: Seconds: pages of a process that has just ended come back when the last reference is dropped.
_FREE_DEADLINE: Final = 3.0


def pool_directory(host: HostReader, node: int, page_size: int) -> str:
    """Where the pool's files stand. A kernel without NUMA has one pool for all (node 0)."""
    name = f"hugepages-{page_size // KIB}kB"
    by_node = f"/sys/devices/system/node/node{node}/hugepages/{name}"
    if host.exists(by_node):
        return by_node
    everywhere = f"/sys/kernel/mm/hugepages/{name}"
    if node <= 0 and host.exists(everywhere) and not host.exists("/sys/devices/system/node/node0"):
        return everywhere
    raise HostError(
        f"this host has no hugepages of {format_size(page_size)} on node {node}",
        remedy="see /sys/kernel/mm/hugepages for the sizes that it has; 1 GiB pages need a processor with pdpe1gb",
    )


def observe_pool(host: HostReader, node: int, page_size: int) -> FoundPool:
    """The pool now. Files: Documentation/admin-guide/mm/hugetlbpage.rst."""
    base = pool_directory(host, node, page_size)
    everywhere = f"/sys/kernel/mm/hugepages/hugepages-{page_size // KIB}kB"
    total, free, surplus = (_count(host, base, name) for name in ("nr", "free", "surplus"))
    # Pages promised to a mapping that has not touched them count as free; the kernel knows their number only overall.
    unpromised = _count(host, everywhere, "free") - _count(host, everywhere, "resv")
    return FoundPool(total=total - surplus, free=max(0, min(free, unpromised)), surplus=surplus)


def _count(host: HostReader, directory: str, name: str) -> int:
    return int(host.read_text(f"{directory}/{name}_hugepages"))


class ReserveHugepagesOperation:
    def observe(self, host: Host, step: ReserveHugepages) -> FoundPool:
        return observe_pool(host, step.node, step.page_size)

    def check(self, host: Host, step: ReserveHugepages, found: FoundPool) -> None:
        """Any count is good to start from; whether the memory suffices only the kernel can tell, by doing it."""

    def perform(self, host: Host, step: ReserveHugepages, found: FoundPool, keep: Keep) -> None:  # noqa: ARG002
        wanted = found.total + step.pages
        _set(host, step.node, step.page_size, wanted)
        got = observe_pool(host, step.node, step.page_size).total - found.total
        if got >= step.pages:
            return
        reason, remedy = explain_shortfall(host, step, got)
        _set(host, step.node, step.page_size, found.total)
        raise HostError(reason, remedy=remedy)

    def inverse(self, step: ReserveHugepages, found: FoundPool, result: None) -> ReleaseHugepages:  # noqa: ARG002
        return ReleaseHugepages(node=step.node, page_size=step.page_size, pages=step.pages, before=found.total)


class ReleaseHugepagesReversal:
    def observe(self, host: Host, inverse: ReleaseHugepages) -> FoundPool:
        return observe_pool(host, inverse.node, inverse.page_size)

    def resume(self, inverse: ReleaseHugepages, then: FoundPool | None, now: FoundPool) -> ReleaseHugepages:
        """`then` None: the reservation itself was cut short, and may have added all, some or none of its pages."""
        if then is None:
            left = now.total - inverse.before
        else:
            left = inverse.pages - (then.total - now.total)
        return dataclasses.replace(inverse, pages=max(0, min(inverse.pages, left)))

    def perform(self, host: Host, inverse: ReleaseHugepages, found: FoundPool) -> Outcome:
        if inverse.pages == 0:
            return already("they were released before")
        node, size = inverse.node, inverse.page_size
        wanted = min(inverse.pages, found.total)
        if wanted == 0:
            return already("the pool is empty: somebody has taken them away")

        def free_enough() -> bool:
            return observe_pool(host, node, size).free >= wanted

        # Never below what is in use: the kernel would turn those pages into surplus ones, and the count would lie.
        host.wait_until(free_enough, deadline=_FREE_DEADLINE)
        now = observe_pool(host, node, size)
        pages = min(wanted, now.free)
        if pages:
            _set(host, node, size, now.total - pages)
        after = observe_pool(host, node, size)
        short = wanted - (found.total - after.total)
        if short <= 0:
            return PUT_BACK
        pages_of = f"{short} of {inverse.pages} hugepages of {format_size(size)} on node {node}"
        return failed(
            f"{pages_of} are in use{_users(host, size)}",
            remedy="end what uses them, then run nvlane restore",
        )

    def void(self, host: Host, inverse: Any) -> Outcome:  # noqa: ARG002
        return already("the host has been booted since, which emptied the pool")


def explain_shortfall(host: HostReader, step: ReserveHugepages, got: int) -> tuple[str, str]:
    """Why the kernel made only `got` pages, from the node's free memory and the buddy allocator's free blocks."""
    free = _node_free(host, step.node)
    whole = _whole_blocks(host, step.node, step.page_size)
    needed = (step.pages - got) * step.page_size
    reason = (
        f"only {got} of {step.pages} hugepages of {format_size(step.page_size)} could be reserved on node {step.node}: "
        f"{format_size(needed // MIB * MIB)} are missing, {free // MIB} MiB are free there"
    )
    if step.page_size >= GIB:
        return f"{reason}, and a running kernel rarely has a whole GiB in one piece", (
            f"reserve them at boot: hugepagesz=1G hugepages={step.pages} on the kernel command line; or take 2MiB pages"
        )
    if free > needed:
        return f"{reason}, but in pieces: {whole} blocks of that size", (
            "echo 3 > /proc/sys/vm/drop_caches; echo 1 > /proc/sys/vm/compact_memory; then again; "
            f"or reserve them at boot: hugepages={step.pages} on the kernel command line"
        )
    return f"{reason} (now, after the pages were given back)", "use less guest memory, another node, or more RAM"


def _set(host: Host, node: int, page_size: int, count: int) -> None:
    path = f"{pool_directory(host, node, page_size)}/nr_hugepages"
    try:
        host.write_text(path, str(count))
    except OSError as error:
        raise HostError(f"cannot write {count} to {path}: {error.strerror}") from error


def _node_free(host: HostReader, node: int) -> int:
    """Free memory of a node in bytes."""
    for path in (f"/sys/devices/system/node/node{node}/meminfo", "/proc/meminfo"):
        if host.exists(path):
            match = re.search(r"MemFree:\s+(\d+) kB", host.read_text(path))
            return int(match[1]) * KIB if match else 0
    return 0


def _whole_blocks(host: HostReader, node: int, page_size: int) -> int:
    """How many blocks of at least `page_size` /proc/buddyinfo shows free on a node; column n counts 4 KiB << n."""
    blocks = 0
    for line in host.read_text("/proc/buddyinfo").splitlines():
        match = re.match(rf"Node\s+{node},\s+zone\s+\S+\s+(.*)", line)
        for order, count in enumerate(match[1].split() if match else ()):
            blocks += int(count) * ((4 * KIB << order) // page_size)
    return blocks


def _users(host: HostReader, page_size: int) -> str:
    """', by qemu-system-x86 (process 12)': processes with a mapping of hugetlb pages that we may look into."""
    found: list[str] = []
    for name in host.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            status = host.read_text(f"/proc/{name}/status")
        except OSError:
            continue  # it ended, or is hidden from us
        match = re.search(r"^HugetlbPages:\s+(\d+) kB", status, re.MULTILINE)
        if match and int(match[1]) * KIB >= page_size:
            title = re.search(r"^Name:\s+(.*)$", status, re.MULTILINE)
            found.append(f"{title[1] if title else '?'} (process {name})")
    return f", by {', '.join(found[:4])}" if found else ""
