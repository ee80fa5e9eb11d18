"""What a running machine says of itself, asked through QMP and given as plain values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from nvlane.model.pci import PciAddress


class Monitor(Protocol):
    """The one thing needed of a QMP connection."""

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chardev:
    """A character device. `connected` is False for a socket without a peer, which QEMU shows nowhere else."""

    id: str
    filename: str
    connected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDevice:
    """A memory device: `kind` is 'nvdimm', 'virtio-pmem', 'dimm', ...; `size` in bytes, without an NVDIMM's
    label."""

    id: str
    kind: str
    size: int
    memdev: str
    address: int = 0


def status(monitor: Monitor) -> str:
    """'running', 'paused', 'prelaunch', 'internal-error', ... (RunState of qapi/run-state.json)."""
    return str(monitor.execute("query-status")["status"])


def device_ids(monitor: Monitor) -> frozenset[str]:
    """The ids of all devices that were given one, on whatever bus."""
    return frozenset(str(entry["name"]) for entry in monitor.execute("qom-list", {"path": "/machine/peripheral"}))


def machine_type(monitor: Monitor) -> str:
    """The machine type as it was resolved: 'pc-q35-10.0' for 'q35'."""
    return str(monitor.execute("qom-get", {"path": "/machine", "property": "type"})).removesuffix("-machine")


def takes_nvdimms(monitor: Monitor) -> bool:
    """Whether the machine was started with the controller of NVDIMMs (its property nvdimm=on), whoever asked for it."""
    if not any(entry["name"] == "nvdimm" for entry in monitor.execute("qom-list", {"path": "/machine"})):
        return False  # a machine type that has none
    return bool(monitor.execute("qom-get", {"path": "/machine", "property": "nvdimm"}))


def present(monitor: Monitor) -> frozenset[str]:
    """The ids of everything that can be plugged: devices, objects, block nodes and character devices."""
    objects = {str(entry["name"]) for entry in monitor.execute("qom-list", {"path": "/objects"})}
    nodes = {str(entry["node-name"]) for entry in monitor.execute("query-named-block-nodes", {"flat": True})}
    links = {str(entry["label"]) for entry in monitor.execute("query-chardev")}
    return device_ids(monitor) | objects | nodes | links


def guest_pci_address(monitor: Monitor, device_id: str) -> PciAddress | None:
    """Where the guest sees a device. The firmware numbers the buses behind bridges, so it is asked for each
    time; None for a device that is no PCI function, or whose bus has no number yet."""
    for domain, device in _pci_devices(monitor):
        if device.get("qdev_id") == device_id:
            return PciAddress(domain, int(device["bus"]), int(device["slot"]), int(device["function"]))
    return None


def free_ports(monitor: Monitor) -> tuple[str, ...]:
    """The ids of the PCIe root ports with nothing behind them, in the order of the board."""
    ports = device_types(monitor, "pcie-root-port")
    empty = []
    for name in ports:
        children = monitor.execute("qom-list", {"path": f"/machine/peripheral/{name}/{name}"})
        if not any(str(entry["name"]).startswith("child[") for entry in children):
            empty.append(name)
    return tuple(sorted(empty, key=lambda name: (len(name), name)))


def device_types(monitor: Monitor, driver: str) -> tuple[str, ...]:
    """The ids of the devices of one driver."""
    entries = monitor.execute("qom-list", {"path": "/machine/peripheral"})
    return tuple(str(entry["name"]) for entry in entries if entry["type"] == f"child<{driver}>")


def parent_bus(monitor: Monitor, device_id: str) -> str:
    """The QOM path of the bus that a device sits on, which need not be the one that it was put on."""
    path = {"path": f"/machine/peripheral/{device_id}", "property": "parent_bus"}
    return str(monitor.execute("qom-get", path))


def chardevs(monitor: Monitor) -> tuple[Chardev, ...]:
    """All character devices and whether their peers are there. QEMU writes 'disconnected:' before the address
    of a client socket that has none (chardev/char-socket.c)."""
    return tuple(
        Chardev(
            id=str(entry["label"]),
            filename=str(entry["filename"]),
            connected=not str(entry["filename"]).startswith("disconnected:"),
        )
        for entry in monitor.execute("query-chardev")
    )


def memory_devices(monitor: Monitor) -> tuple[MemoryDevice, ...]:
    return tuple(
        MemoryDevice(
            id=str(entry["data"].get("id", "")),
            kind=str(entry["type"]),
            size=int(entry["data"]["size"]),
            memdev=str(entry["data"].get("memdev", "")),
            # virtio-pmem calls it memaddr, for its addr is a PCI one (qapi/machine.json).
            address=int(entry["data"].get("memaddr", entry["data"].get("addr", 0))),
        )
        for entry in monitor.execute("query-memory-devices")
    )


def vcpu_threads(monitor: Monitor) -> tuple[int, ...]:
    """The thread id of each vCPU, in order."""
    return tuple(int(entry["thread-id"]) for entry in monitor.execute("query-cpus-fast"))


def iothread_threads(monitor: Monitor) -> dict[str, int]:
    """The thread id of each iothread, by its id."""
    return {str(entry["id"]): int(entry["thread-id"]) for entry in monitor.execute("query-iothreads")}


def _pci_devices(monitor: Monitor) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for bus in monitor.execute("query-pci"):
        # A root bus has a number and no domain: QEMU's PC boards have the one domain, 0.
        yield from ((0, device) for device in _nested(bus.get("devices", ())))


def _nested(devices: Any) -> Iterator[Mapping[str, Any]]:
    for device in devices:
        yield device
        yield from _nested(device.get("pci_bridge", {}).get("devices", ()))
