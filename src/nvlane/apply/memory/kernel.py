"""Modules, hugepages, mounts and processes of the in-memory host."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Final

from nvlane.apply.memory.pci import Bus
from nvlane.apply.memory.tree import Tree
from nvlane.model.size import KIB

#: Loadable modules -> what each needs, as Debian's kernels have them (modules.dep).
_NEEDS: Final = {
    "vfio": (),
    "irqbypass": (),
    "vfio_iommu_type1": ("vfio",),
    "vfio_pci_core": ("vfio", "irqbypass"),
    "vfio_pci": ("vfio_pci_core",),
    "uio": (),
    "uio_pci_generic": ("uio",),
    "configfs": (),
    "nvmet": ("configfs",),
    "nvme_fabrics": (),
    "nvme_loop": ("nvme_fabrics", "nvmet"),
}
_DRIVERS: Final = {"vfio_pci": "vfio-pci", "uio_pci_generic": "uio_pci_generic"}


class Modules:
    """/proc/modules. `pinned` are modules that something in the kernel holds."""

    def __init__(self, tree: Tree, bus: Bus) -> None:
        self._tree, self._bus = tree, bus
        self.loaded: list[str] = []
        self.pinned: set[str] = set()
        tree.add_control("/proc/modules", read=self._text)

    def order(self, name: str) -> list[str]:
        """What loading `name` loads, in order. KeyError for no such module."""
        found: list[str] = []
        for needed in _NEEDS[name]:
            found += [module for module in self.order(needed) if module not in found]
        return [*found, name]

    def load(self, name: str) -> None:
        for module in self.order(name):
            if module not in self.loaded:
                self.loaded.insert(0, module)
                self._tree.add_directory(f"/sys/module/{module}")
                if module in _DRIVERS:
                    self._bus.add_driver(_DRIVERS[module], module)

    def unload(self, name: str) -> None:
        if name not in self.loaded:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if self._users(name) or name in self.pinned:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN), name)
        if name in _DRIVERS:
            self._bus.remove_driver(_DRIVERS[name])
        self.loaded.remove(name)
        self._tree.remove(f"/sys/module/{name}")

    def reboot(self) -> None:
        for name in list(self.loaded):
            if name in _DRIVERS:
                self._bus.remove_driver(_DRIVERS[name])
            self._tree.remove(f"/sys/module/{name}")
        self.loaded.clear()
        self.pinned.clear()

    def _users(self, name: str) -> list[str]:
        return [module for module in self.loaded if name in _NEEDS[module]]

    def _text(self) -> str:
        lines = []
        for name in self.loaded:
            users = self._users(name)
            count = len(users) + (name in self.pinned)
            lines.append(f"{name} 16384 {count} {','.join(users) + ',' if users else '-'} Live 0x0000000000000000\n")
        return "".join(lines)


@dataclass(slots=True, kw_only=True)
class Pool:
    """One hugepage pool: pages that there are, that are in use, and that the node's memory could give."""

    capacity: int
    total: int = 0
    used: int = 0
    surplus: int = 0


class Hugepages:
    """Pools by (node, page size in bytes), with the rules of set_max_huge_pages() in mm/hugetlb.c."""

    def __init__(self, tree: Tree, pools: dict[tuple[int, int], Pool]) -> None:
        self.pools = pools
        for (node, size), pool in pools.items():
            base = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{size // KIB}kB"
            self._show(tree, base, [pool])
            tree.add_control(
                f"{base}/nr_hugepages",
                read=lambda pool=pool: f"{pool.total}\n",  # type: ignore[misc]
                write=lambda text, pool=pool: self._set(pool, int(text)),  # type: ignore[misc]
            )
            tree.add_text(f"/sys/devices/system/node/node{node}/meminfo", f"Node {node} MemFree: 65536 kB\n")
        for size in {size for _, size in pools}:
            base = f"/sys/kernel/mm/hugepages/hugepages-{size // KIB}kB"
            self._show(tree, base, [pool for (_, other), pool in pools.items() if other == size])

    def _show(self, tree: Tree, base: str, pools: list[Pool]) -> None:
        def shown(name: str) -> str:
            values = {
                "nr_hugepages": sum(pool.total for pool in pools),
                "free_hugepages": sum(pool.total - pool.used for pool in pools),
                "surplus_hugepages": sum(pool.surplus for pool in pools),
                "resv_hugepages": 0,
            }
            return f"{values[name]}\n"

        for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages", "resv_hugepages"):
            tree.add_control(f"{base}/{name}", read=lambda name=name: shown(name))  # type: ignore[misc]

    def _set(self, pool: Pool, count: int) -> None:
        persistent = pool.total - pool.surplus
        if count >= persistent:
            # Surplus pages become persistent first, then new ones are made as far as memory goes.
            adopted = min(pool.surplus, count - persistent)
            pool.surplus -= adopted
            pool.total = min(max(pool.capacity, pool.total), count + pool.surplus)
        else:
            # Free pages go; what is in use stays as surplus, and the count of persistent ones is as was asked.
            pool.total = max(pool.used, count + pool.surplus)
            pool.surplus = max(0, pool.total - count)

    def reboot(self) -> None:
        for pool in self.pools.values():
            pool.total = pool.used = pool.surplus = 0


class Mounts:
    """/proc/self/mountinfo; the root is always there. `busy` are targets that somebody uses."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.mounted: list[tuple[str, str, str, str]] = []
        self.busy: set[str] = set()
        tree.add_control("/proc/self/mountinfo", read=self._text)
        tree.add_text("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")

    def mount(self, source: str, target: str, fstype: str, options: str) -> None:
        self._tree.directory(target)
        self.mounted.append((source, target, fstype, options))

    def umount(self, target: str) -> None:
        for index in range(len(self.mounted) - 1, -1, -1):
            if self.mounted[index][1] == target:
                if target in self.busy:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), target)
                del self.mounted[index]
                return
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), target)

    def is_mountpoint(self, path: str) -> bool:
        return any(target == path for _, target, _, _ in self.mounted)

    def reboot(self) -> None:
        self.mounted.clear()
        self.busy.clear()

    def _text(self) -> str:
        lines = ["1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"]
        for number, (source, path, fstype, options) in enumerate(self.mounted, start=2):
            target = path.replace(" ", "\\040")
            lines.append(f"{number} 1 0:{40 + number} / {target} rw - {fstype} {source} rw,{options}\n")
        return "".join(lines)


@dataclass(slots=True, kw_only=True)
class MemoryProcess:
    """A process: what /proc shows of it, and the sockets that it serves."""

    pid: int
    start_time: int
    argv: tuple[str, ...]
    environment: dict[str, str]
    sockets: list[str] = field(default_factory=list)
    ignores: frozenset[int] = frozenset()


class Processes:
    """/proc/PID of every process."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._next = 100
        self._clock = 1000
        self.running: dict[int, MemoryProcess] = {}
        tree.add_directory("/proc")

    def start(self, argv: tuple[str, ...], environment: dict[str, str]) -> MemoryProcess:
        self._next += 1
        self._clock += 1
        process = MemoryProcess(pid=self._next, start_time=self._clock, argv=argv, environment=environment)
        self.running[process.pid] = process
        base, name = f"/proc/{process.pid}", argv[0].rpartition("/")[2][:15]
        tree = self._tree
        tree.add_text(f"{base}/comm", f"{name}\n")
        tree.add_text(f"{base}/cmdline", "\0".join(argv) + "\0")
        tree.add_text(f"{base}/environ", "".join(f"{key}={value}\0" for key, value in environment.items()))
        fields = " ".join(["S", "1", *("0" for _ in range(17)), str(process.start_time), "0"])
        tree.add_text(f"{base}/stat", f"{process.pid} ({name}) {fields}\n")
        tree.add_text(f"{base}/status", f"Name:\t{name}\nHugetlbPages:\t       0 kB\n")
        tree.add_directory(f"{base}/fd")
        return process

    def end(self, pid: int) -> None:
        self.running.pop(pid, None)
        self._tree.remove(f"/proc/{pid}")

    def reboot(self) -> None:
        for pid in list(self.running):
            self.end(pid)
        self._clock = 1000
        self._next = 100
