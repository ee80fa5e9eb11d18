"""The PCI topology of a domain: which places are taken, by its own devices and by those in `<qemu:commandline>`.

libvirt does not know of the latter, and QEMU ends with 'PCI: slot 6 function 0 not available' where two ask for one
place. QEMU's bus ids come from libvirt's controllers: 'pcie.0' or 'pci.0' for the root, 'pci.N' for the one with
index N, or its user alias (qemu_alias.c and qemu_command.c in libvirt).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from nvlane.libvirt.document import Element
from nvlane.libvirt.match import USER_ALIAS

#: A place of a device: index of the bus, slot, function.
Place = tuple[int, int, int]

#: Slots of the root bus that the board itself has, or that libvirt keeps for the first video card and, on q35, for
#: sound and the USB 2 companions of old guests (qemuDomainValidateDevicePCISlots in libvirt).
_PIIX: Final = frozenset({0, 1, 2})
_Q35: Final = frozenset({0, 1, 0x1B, 0x1D, 0x1F})
_PORTS: Final = frozenset({"pcie-root-port", "pcie-switch-downstream-port"})
_BRIDGES: Final = frozenset({"pci-bridge", "dmi-to-pci-bridge", "pcie-to-pci-bridge"})
_ROOTS: Final = frozenset({"pci-root", "pcie-root"})
#: Devices that libvirt gives a PCI address of their own when it defines a domain.
_ADDRESSED: Final = frozenset({"interface", "video", "rng"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bus:
    """One PCI bus. `id` is QEMU's. `port` for a bus of one slot that takes a PCIe device, hot-plugged too."""

    index: int
    model: str
    id: str
    port: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """`express` for boards with PCIe. `addressed` is false for XML that libvirt has not yet given addresses to."""

    buses: tuple[Bus, ...]
    taken: frozenset[Place]
    express: bool
    addressed: bool
    unplaced: tuple[str, ...] = ()  # devices in <qemu:commandline> without an address

    @property
    def root(self) -> Bus:
        return self.buses[0]

    def free_ports(self) -> tuple[Bus, ...]:
        """Root ports with nothing on them that take hot-plugged devices."""
        used = {index for index, _, _ in self.taken}
        return tuple(bus for bus in self.buses if bus.port and bus.index not in used)

    def free_slots(self, bus: Bus) -> tuple[int, ...]:
        """Slots of a conventional bus, or of the PCIe root, with nothing in them."""
        used = {slot for index, slot, _ in self.taken if index == bus.index}
        own = (_Q35 if self.express else _PIIX) if bus.model in _ROOTS else frozenset({0})
        return tuple(slot for slot in range(1, 32) if slot not in used | own)

    def next_index(self) -> int:
        return max(bus.index for bus in self.buses) + 1


def topology(root: Element) -> Topology | None:
    """The topology of a domain; None for a board without PCI (microvm, isapc, s390)."""
    devices = root.find("devices")
    controllers = [c for c in devices.each("controller") if c.attributes.get("type") == "pci"] if devices else []
    machine = root.value("os/type@machine")
    models = {c.attributes.get("model", "") for c in controllers}
    if not controllers and not _has_pci(machine, root.value("os/type@arch")):
        return None
    express = "pcie-root" in models or ("pci-root" not in models and ("q35" in machine or machine.startswith("virt")))
    buses = {0: Bus(index=0, model="pcie-root" if express else "pci-root", id=_root_id(express), port=False)}
    for number, controller in enumerate(controllers):
        index = int(controller.attributes.get("index") or str(number), 0)
        model = controller.attributes.get("model", "")
        if model not in _ROOTS:
            alias = controller.value("alias@name")
            name = alias if alias.startswith(USER_ALIAS) else f"pci.{index}"
            off = controller.value("target@hotplug") == "off"
            buses[index] = Bus(index=index, model=model, id=name, port=model in _PORTS and not off)
    taken, unplaced = _commandline(root, buses)
    return Topology(
        buses=tuple(buses[index] for index in sorted(buses)),
        taken=frozenset({*_addresses(root), *taken}),
        express=express,
        addressed=devices is not None and _is_addressed(devices),
        unplaced=unplaced,
    )


def conventional(topo: Topology) -> tuple[Bus, ...]:
    """The buses whose slots take plain PCI devices: the root of a board without PCIe, and bridges."""
    return tuple(bus for bus in topo.buses if bus.model == "pci-root" or bus.model in _BRIDGES)


def occupied(root: Element) -> frozenset[int]:
    """The indices of the buses that have a device on them."""
    seen = topology(root)
    return frozenset(index for index, _, _ in seen.taken) if seen else frozenset()


def last_port(root: Element) -> int:
    seen = topology(root)
    return max(bus.index for bus in seen.buses) if seen else -1


def _has_pci(machine: str, arch: str) -> bool:
    return arch != "s390x" and not any(name in machine for name in ("microvm", "isapc", "s390"))


def _root_id(express: bool) -> str:
    return "pcie.0" if express else "pci.0"


def _addresses(root: Element) -> Iterator[Place]:
    devices = root.find("devices")
    for device in devices.children if devices else ():
        for address in device.each("address"):
            if address.attributes.get("type") == "pci" and "slot" in address.attributes:
                bus, slot, function = (int(address.attributes.get(key, "0"), 0) for key in ("bus", "slot", "function"))
                yield bus, slot, function


def _is_addressed(devices: Element) -> bool:
    """Whether libvirt has been through it: it adds a USB controller and a balloon, too, where none is ruled out."""
    complete = next(devices.iterate("controller[type=usb]"), None) and devices.first("memballoon")
    return complete is not None and not any(_lacks_address(device) for device in devices.children)


def _lacks_address(device: Element) -> bool:
    """A device on PCI to which libvirt has not given its address."""
    if device.first("address") is not None:
        return False
    kind = device.attributes
    match device.name:
        case "disk":
            return device.value("target@bus") == "virtio"
        case "controller":
            return kind.get("type") in ("usb", "scsi", "virtio-serial") and kind.get("model") != "none"
        case "memballoon":
            return kind.get("model") == "virtio"
        case "hostdev":
            return kind.get("type") == "pci"
        case name:
            return name in _ADDRESSED and device.value("model@type") != "none"


def arguments(root: Element) -> tuple[str, ...]:
    """The words of `<qemu:commandline>`."""
    return tuple(arg.attributes.get("value", "") for arg in root.iterate("qemu:commandline/qemu:arg"))


def device_options(root: Element) -> Iterator[dict[str, str]]:
    """The options of every `-device` in `<qemu:commandline>`, in either syntax."""
    words = arguments(root)
    for flag, value in pairwise(words):
        if flag in ("-device", "--device"):
            yield _options(value)


def _options(value: str) -> dict[str, str]:
    if value.lstrip().startswith("{"):
        try:
            return {key: str(item) for key, item in json.loads(value).items()}
        except (ValueError, AttributeError):
            return {}
    first, *rest = re.split(r"(?<!,),(?!,)", value)
    pairs = (item.partition("=") for item in rest)
    options = {key: text.replace(",,", ",") for key, _, text in pairs}
    return {"driver": first, **options} if "=" not in first else {**options, **dict([first.split("=", 1)])}


#: Devices in <qemu:commandline> that are on no PCI bus.
_NO_PCI: Final = re.compile(
    r"nvme-ns|nvme-subsys|nvdimm|pc-dimm|scsi-|ide-|usb-(?!ehci)|virtserialport|virtconsole|isa-"
)


def _commandline(root: Element, buses: dict[int, Bus]) -> tuple[set[Place], tuple[str, ...]]:
    taken: set[Place] = set()
    unplaced: list[str] = []
    names = {bus.id: index for index, bus in buses.items()}
    for options in device_options(root):
        driver = options.get("driver", "")
        if _NO_PCI.match(driver):
            continue
        if options.get("bus", "") not in ("", *names):
            continue  # on a port of the command line's own
        bus = names.get(options.get("bus", ""), -1)
        slot, _, function = options.get("addr", "0" if bus > 0 and buses[bus].port else "").partition(".")
        if bus < 0 or not slot:
            unplaced.append(options.get("id", driver))
            continue
        taken.add((bus, int(slot, 16), int(function or "0", 16)))
    return taken, tuple(unplaced)
