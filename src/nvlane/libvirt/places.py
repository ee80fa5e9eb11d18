"""Gives out what a new device needs of a domain: a PCI place, a disk name, a controller number, an iothread.

What it gives out is taken from then on, so that the devices of one lane do not collide with each other either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Final

from nvlane.libvirt.document import Element
from nvlane.libvirt.markup import Node, node
from nvlane.libvirt.slots import Bus, Topology, conventional, device_options, topology
from nvlane.model.errors import Refused

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """A PCI place, by libvirt's number of its bus and by QEMU's id."""

    index: int
    slot: int
    bus: str

    @property
    def address(self) -> Node:
        return node(
            "address", type="pci", domain="0x0000", bus=f"0x{self.index:02x}", slot=f"0x{self.slot:02x}", function="0x0"
        )


class Places:
    """The free places of one domain. `grow` lets it add PCIe root ports, which a running domain cannot get. `busy` are
    further places, as (QEMU's bus id, slot), that are taken."""

    def __init__(self, root: Element, *, grow: bool = True, busy: frozenset[tuple[str, int]] = frozenset()) -> None:
        self.root = root
        self.new_ports: list[int] = []
        self._topology = topology(root)
        self._grow = grow
        numbers = {bus.id: bus.index for bus in self._topology.buses} if self._topology else {}
        self._given = {(numbers[bus], slot) for bus, slot in busy if bus in numbers}
        self._names = {target.attributes.get("dev", "") for target in root.iterate("devices/disk/target")}
        self._controllers: dict[str, set[int]] = {}
        self._threads = _threads(root)

    @property
    def known(self) -> bool:
        """Whether libvirt has given all devices their addresses; if not, it chooses those of new ones too."""
        return self._topology is None or self._topology.addressed

    @property
    def express(self) -> bool:
        return self._topology is not None and self._topology.express

    def spot(self, driver: str, *, port: bool = True) -> Spot:
        """A place that libvirt would choose: `port` for a device that is PCIe, and gets a root port on such a board.

        Raises Refused where there is none.
        """
        seen = self._seen(driver)
        if not seen.express:
            return self._slot(seen, driver)
        return self._port(seen, driver) if port else self.far_spot(driver)

    def far_spot(self, driver: str) -> Spot:
        """A place at the far end of the root bus, away from where libvirt puts what it adds, for a device that libvirt
        does not know of."""
        seen = self._seen(driver)
        if not seen.express:
            return self._slot(seen, driver, far=True)
        free = [slot for slot in seen.free_slots(seen.root) if (0, slot) not in self._given]
        if not free:
            raise Refused(f"no slot of the root bus is free for {driver}", remedy="remove a device of bus 0x00")
        return self._give(seen.root, max(free))

    def hot_spot(self, driver: str) -> Spot:
        """A place in a running machine, as far as can be from the one that libvirt would take next."""
        seen = self._seen(driver)
        return self._port(seen, driver, far=True) if seen.express else self._slot(seen, driver, far=True)

    def _seen(self, driver: str) -> Topology:
        if self._topology is None:
            raise Refused(
                f"this machine type has no PCI bus, and {driver} needs one",
                remedy="use a q35 or pc (i440fx) machine type, or 'virt' on aarch64",
            )
        return self._topology

    def _slot(self, seen: Topology, driver: str, *, far: bool = False) -> Spot:
        for bus in conventional(seen):
            free = [slot for slot in seen.free_slots(bus) if (bus.index, slot) not in self._given]
            if free:
                return self._give(bus, max(free) if far else min(free))
        raise Refused(
            f"no PCI slot is free for {driver}",
            remedy="remove a device, or add a bus: virt-xml DOMAIN --add-device --controller pci,model=pci-bridge",
        )

    def _port(self, seen: Topology, driver: str, *, far: bool = False) -> Spot:
        free = [bus for bus in seen.free_ports() if (bus.index, 0) not in self._given]
        if free:
            return self._give(free[-1 if far else 0], 0)
        if not self._grow:
            raise Refused(
                f"no PCIe root port is free for {driver}, and a running machine gets no new ones",
                remedy="attach it with --config and start the domain anew: nvlane then adds the port",
            )
        index = seen.next_index() + len(self.new_ports)
        self.new_ports.append(index)
        return self._give(Bus(index=index, model="pcie-root-port", id=f"pci.{index}", port=True), 0)

    def _give(self, bus: Bus, slot: int) -> Spot:
        self._given.add((bus.index, slot))
        return Spot(index=bus.index, slot=slot, bus=bus.id)

    def target(self, prefix: str) -> str:
        """A free name of the series 'vd', 'sd': vda, vdb, ... vdz, vdaa."""
        name = next(name for name in _series(prefix) if name not in self._names)
        self._names.add(name)
        return name

    def controller(self, kind: str) -> int:
        """The next index of a controller of this type."""
        taken = self._controllers.setdefault(kind, set(self._indices(kind)))
        index = max(taken, default=-1) + 1
        taken.add(index)
        return index

    def _indices(self, kind: str) -> Iterator[int]:
        for controller in self.root.iterate(f"devices/controller[type={kind}]"):
            yield int(controller.attributes.get("index", "0"), 0)
        if kind == "sata" and self._topology is not None and self._topology.express:
            yield 0  # the board's own
        buses = {"usb": ("usb",), "scsi": ("scsi",), "sata": ("sata",), "nvme": ("nvme",)}.get(kind, ())
        for disk in self.root.iterate("devices/disk"):
            if disk.value("target@bus") in buses:
                yield int(disk.value("address@controller") or "0", 0)
                if match := re.fullmatch(r"nvme(\d+)n\d+", disk.value("target@dev")):
                    yield int(match[1])

    def iothread(self) -> int:
        """The id of a new iothread."""
        number = max(self._threads, default=0) + 1
        self._threads.add(number)
        return number


def _threads(root: Element) -> set[int]:
    named = {int(thread.attributes.get("id", "0")) for thread in root.iterate("iothreadids/iothread")}
    free = (number for number in count(1) if number not in named)
    unnamed = int(root.value("iothreads") or "0") - len(named)
    return named | {next(free) for _ in range(max(unnamed, 0))}


def _series(prefix: str) -> Iterator[str]:
    for number in count():
        name, rest = "", number
        while True:
            name, rest = _LETTERS[rest % 26] + name, rest // 26 - 1
            if rest < 0:
                break
        yield prefix + name


def ids(root: Element) -> frozenset[str]:
    """Ids in QEMU that a domain has already: aliases, and what `<qemu:commandline>` makes."""
    aliases = {alias.attributes.get("name", "") for device in _devices(root) for alias in device.each("alias")}
    return frozenset(aliases | {options.get("id", "") for options in device_options(root)}) - {""}


def _devices(root: Element) -> tuple[Element, ...]:
    devices = root.find("devices")
    return devices.children if devices else ()
