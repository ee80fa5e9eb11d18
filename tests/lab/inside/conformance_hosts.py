"""The two hosts that one suite compares: the one in memory, and the real one (in the lab only, as root)."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvlane.apply.linux import LinuxHost
from nvlane.apply.memory import MemoryFunction, MemoryHost, Pool
from nvlane.apply.operations.function import observe_function
from nvlane.model.pci import PciAddress
from nvlane.model.size import GIB, MIB

PAGE = 2 * MIB
#: Of <linux/memfd.h>: a memory file of hugepages, of 2 MiB (log2 of the size shifted by HUGETLB_FLAG_ENCODE_SHIFT).
_MFD_HUGETLB, _MFD_HUGE_2MB = 0x4, 21 << 26


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A host with a free drive, and a directory in which anything may be made. `host` is typed as what both have."""

    host: Any
    drive: PciAddress
    serial: str
    directory: str
    mounted_node: str

    @contextlib.contextmanager
    def pages_in_use(self, count: int) -> Iterator[None]:
        """Somebody uses `count` hugepages of 2 MiB of node 0."""
        if isinstance(self.host, MemoryHost):
            pool = self.host.hugepages.pools[0, PAGE]
            pool.used += count
            try:
                yield
            finally:
                pool.used -= count
                # A surplus page goes back to the memory when its user lets go (free_huge_folio in mm/hugetlb.c).
                gone = min(pool.surplus, count)
                pool.surplus -= gone
                pool.total -= gone
            return
        descriptor = os.memfd_create("pages", _MFD_HUGETLB | _MFD_HUGE_2MB)
        try:
            os.ftruncate(descriptor, count * PAGE)
            with mmap.mmap(descriptor, count * PAGE) as pages:
                for index in range(count):
                    pages[index * PAGE] = 1
                yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def opened(self, path: str) -> Iterator[int]:
        """A process holds `path` open; its id."""
        if isinstance(self.host, MemoryHost):
            process = self.host.hold_open(path)
            try:
                yield process.pid
            finally:
                self.host.processes.end(process.pid)
                self.host.bus.open_nodes.discard(path)
            return
        descriptor = os.open(path, os.O_RDWR)
        try:
            yield os.getpid()
        finally:
            os.close(descriptor)


def memory_subject() -> Subject:
    free, mounted = PciAddress(0, 4, 0, 0), PciAddress(0, 5, 0, 0)
    host = MemoryHost(
        functions=[
            MemoryFunction(address=free, group=10, serial="FREE", namespaces=((1, GIB, 512),)),
            MemoryFunction(address=mounted, group=11, serial="MOUNTED", namespaces=((1, GIB, 512),)),
        ],
        pools={(0, PAGE): Pool(capacity=100)},
    )
    host.bus.claimed.add("/dev/nvme1n1")
    return Subject(host=host, drive=free, serial="FREE", directory="/tmp", mounted_node="/dev/nvme1n1")


def linux_subject(directory: Path) -> Subject:
    """The lab: LABDRIVE1 is free, LABMOUNT is mounted."""
    host = LinuxHost()
    found: dict[str, PciAddress] = {}
    for name in host.listdir("/sys/bus/pci/devices"):
        address = PciAddress.parse(name)
        drive = observe_function(host, address).drive
        if drive is not None:
            found[drive.serial] = address
    mounted = observe_function(host, found["LABMOUNT"]).drive
    assert mounted is not None
    return Subject(
        host=host,
        drive=found["LABDRIVE1"],
        serial="LABDRIVE1",
        directory=str(directory),
        mounted_node=f"/dev/{mounted.namespaces[0].name}",
    )
