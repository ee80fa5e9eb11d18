"""The PCI bus, its drivers and NVMe drives of the in-memory host, with the kernel's rules for binding.

The rules are those of drivers/pci/pci-driver.c (pci_match_device: an override excludes every other driver) and
drivers/base/bus.c (unbind_store, drivers_probe_store); the lab's conformance test compares them with a real kernel.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from nvlane.apply.memory.tree import Tree
from nvlane.model.pci import NVME_CLASS, PciAddress

_BUS: Final = "/sys/bus/pci"
#: Drivers that take a function only when an override names them.
_ONLY_BY_OVERRIDE: Final = frozenset({"vfio-pci", "uio_pci_generic"})


@dataclass(slots=True, kw_only=True)
class MemoryFunction:
    """One PCI function. `namespaces` are (nsid, size, block size), in bytes. `refuses` names drivers whose probe
    fails on it."""

    address: PciAddress
    vendor: int = 0x1B36
    device: int = 0x0010
    pci_class: int = NVME_CLASS
    group: int | None = None
    serial: str = ""
    model: str = "QEMU NVMe Ctrl"
    namespaces: tuple[tuple[int, int, int], ...] = ()
    refuses: frozenset[str] = frozenset()
    override: str = ""
    driver: str = ""
    controller: str = ""


class Bus:
    """Functions and drivers as a tree shows them. `open_nodes` are device nodes that some process holds open."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._drivers: dict[str, str] = {}  # driver -> module, '' for built in
        self.functions: dict[PciAddress, MemoryFunction] = {}
        self.open_nodes: set[str] = set()
        self.claimed: set[str] = set()
        tree.add_control(f"{_BUS}/drivers_probe", write=self._probe_text)
        for path in (f"{_BUS}/devices", f"{_BUS}/drivers", "/sys/class/nvme", "/sys/block", "/dev/vfio"):
            tree.add_directory(path)

    def add_driver(self, name: str, module: str = "") -> None:
        """Register a driver; it takes what waits for it (driver_attach)."""
        base = f"{_BUS}/drivers/{name}"
        self._drivers[name] = module
        self._tree.add_control(f"{base}/unbind", write=lambda text: self._unbind_text(name, text))
        self._tree.add_control(f"{base}/bind", write=lambda text: self._bind_text(name, text))
        if module:
            self._tree.add_link(f"/sys/module/{module}/drivers/pci:{name}", base)
        for function in self.functions.values():
            if not function.driver and self._wants(function) == name:
                self._bind(function, name)

    def remove_driver(self, name: str) -> None:
        for function in list(self.functions.values()):
            if function.driver == name:
                self._unbind(function)
        module = self._drivers.pop(name)
        self._tree.remove(f"/sys/module/{module}/drivers/pci:{name}")
        self._tree.remove(f"{_BUS}/drivers/{name}")

    def add(self, function: MemoryFunction) -> None:
        """Plug a function in; the bus looks for a driver at once."""
        base = self._base(function)
        tree = self._tree
        self.functions[function.address] = function
        tree.add_text(f"{base}/vendor", f"0x{function.vendor:04x}\n")
        tree.add_text(f"{base}/device", f"0x{function.device:04x}\n")
        tree.add_text(f"{base}/class", f"0x{function.pci_class:06x}\n")
        tree.add_text(f"{base}/numa_node", "0\n")
        tree.add_link(f"{base}/subsystem", _BUS)
        tree.add_control(
            f"{base}/driver_override",
            read=lambda: f"{function.override or '(null)'}\n",
            write=lambda text: setattr(function, "override", text.strip()),
        )
        if function.group is not None:
            tree.add_directory(f"/sys/kernel/iommu_groups/{function.group}/devices")
            tree.add_link(f"{base}/iommu_group", f"/sys/kernel/iommu_groups/{function.group}")
            tree.add_link(f"/sys/kernel/iommu_groups/{function.group}/devices/{function.address}", base)
        tree.add_link(function.address.sysfs, base)
        self._probe(function)

    def remove(self, address: PciAddress) -> None:
        """Pull a function out."""
        function = self.functions.pop(address)
        if function.driver:
            self._unbind(function)
        if function.group is not None:
            self._tree.remove(f"/sys/kernel/iommu_groups/{function.group}")
        self._tree.remove(address.sysfs)
        self._tree.remove(self._base(function))

    def reboot(self) -> None:
        """Every function as it is after a boot: no override, and the driver that matches by class."""
        for function in list(self.functions.values()):
            if function.driver:
                self._unbind(function)
            function.override = ""
        for function in self.functions.values():
            self._probe(function)

    def _base(self, function: MemoryFunction) -> str:
        return f"/sys/devices/pci0000:00/{function.address}"

    def _wants(self, function: MemoryFunction) -> str:
        if function.override:
            return function.override if function.override in self._drivers else ""
        return "nvme" if function.pci_class == NVME_CLASS and "nvme" in self._drivers else ""

    def _probe_text(self, text: str) -> None:
        function = self._named(text)
        if not function.driver:
            self._probe(function)

    def _probe(self, function: MemoryFunction) -> None:
        driver = self._wants(function)
        if driver:
            self._bind(function, driver)

    def _bind_text(self, driver: str, text: str) -> None:
        function = self._named(text)
        if function.driver or (driver in _ONLY_BY_OVERRIDE and function.override != driver):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self._bind(function, driver)

    def _unbind_text(self, driver: str, text: str) -> None:
        function = self._named(text)
        if function.driver != driver:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        self._unbind(function)

    def _named(self, text: str) -> MemoryFunction:
        try:
            return self.functions[PciAddress.parse(text)]
        except (KeyError, ValueError):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None

    def _bind(self, function: MemoryFunction, driver: str) -> None:
        if driver in function.refuses or (driver == "vfio-pci" and function.group is None):
            return  # its probe fails; the write that caused it succeeds all the same
        function.driver = driver
        base = self._base(function)
        self._tree.add_link(f"{base}/driver", f"{_BUS}/drivers/{driver}")
        self._tree.add_link(f"{_BUS}/drivers/{driver}/{function.address}", base)
        if driver == "nvme":
            self._add_drive(function)
        elif driver == "vfio-pci" and not self._tree.exists(f"/dev/vfio/{function.group}"):
            self._tree.add(f"/dev/vfio/{function.group}", "char")

    def _unbind(self, function: MemoryFunction) -> None:
        node = f"/dev/vfio/{function.group}"
        if function.driver == "vfio-pci":
            if node in self.open_nodes:
                raise AssertionError(f"unbinding {function.address} hangs: {node} is open")
            self._tree.remove(node)
        elif function.driver == "nvme":
            self._remove_drive(function)
        self._tree.remove(f"{_BUS}/drivers/{function.driver}/{function.address}")
        self._tree.remove(f"{self._base(function)}/driver")
        function.driver = ""

    def _add_drive(self, function: MemoryFunction) -> None:
        taken = {other.controller for other in self.functions.values()}
        number = next(n for n in range(len(taken) + 1) if f"nvme{n}" not in taken)
        name = function.controller = f"nvme{number}"
        minor = function.address.bus * 256 + function.address.device * 8
        tree, base = self._tree, f"{self._base(function)}/nvme/{name}"
        tree.add_text(f"{base}/serial", f"{function.serial:<20}\n")
        tree.add_text(f"{base}/model", f"{function.model:<40}\n")
        tree.add_text(f"{base}/state", "live\n")
        tree.add_text(f"{base}/transport", "pcie\n")
        tree.add_text(f"{base}/address", f"{function.address}\n")
        tree.add_link(f"{base}/device", self._base(function))
        tree.add_link(f"/sys/class/nvme/{name}", base)
        tree.add(f"/dev/{name}", "char")
        for nsid, size, block_size in function.namespaces:
            node, block = f"{name}n{nsid}", f"{base}/{name}n{nsid}"
            tree.add_text(f"{block}/size", f"{size // 512}\n")
            tree.add_text(f"{block}/nsid", f"{nsid}\n")
            tree.add_text(f"{block}/dev", f"259:{minor + nsid}\n")
            tree.add_text(f"{block}/queue/logical_block_size", f"{block_size}\n")
            tree.add_directory(f"{block}/holders")
            tree.add_directory(f"{block}/slaves")
            tree.add_link(f"/sys/block/{node}", block)
            tree.add_link(f"/sys/class/block/{node}", block)
            tree.add(f"/dev/{node}", "block").device = (259, minor + nsid)

    def _remove_drive(self, function: MemoryFunction) -> None:
        name = function.controller
        for nsid, _, _ in function.namespaces:
            for path in (f"/sys/block/{name}n{nsid}", f"/sys/class/block/{name}n{nsid}", f"/dev/{name}n{nsid}"):
                self._tree.remove(path)
        for path in (f"/sys/class/nvme/{name}", f"/dev/{name}", f"{self._base(function)}/nvme"):
            self._tree.remove(path)
        function.controller = ""
