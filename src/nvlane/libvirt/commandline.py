"""What libvirt has no XML for, as words of `<qemu:commandline>`: QEMU's own syntax, with explicit bus= and addr=.

The words are JSON wherever QEMU takes it. Devices must be: QEMU makes those of `key=value` form before those of JSON
form, in which libvirt writes its root ports, and would not find the bus (system/vl.c, qemu_create_cli_devices).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, assert_never

from nvlane.libvirt.places import Places, Spot
from nvlane.model.device import BlockNode, Device, Frontend, Object, SocketChardev
from nvlane.qemu.syntax import chardev_options, compact, device_properties, node_options, object_properties

#: PCI devices of ours that ask for no slot of their own, for a conventional place will do.
_CONVENTIONAL: Final = frozenset({"ich9-ahci"})
#: Chassis numbers of our root ports: libvirt numbers its own from 1 (qemuDomainAssignPCIAddresses).
_CHASSIS: Final = 200


def place(devices: Sequence[Device], places: Places) -> tuple[tuple[Device, ...], dict[str, Spot]]:
    """The devices with the root ports that they need before them, and the PCI places, by id.

    A device that can be hot-plugged gets a root port of its own on the command line too. libvirt takes the ports that
    it knows for free, and puts the next device there that somebody adds to the domain; of this one it does not know.
    """
    given: dict[str, Spot] = {}
    ports: list[Device] = []
    for device in devices:
        if not isinstance(device, Frontend) or not (device.slot or device.driver in _CONVENTIONAL):
            continue
        spot = places.far_spot(device.driver)
        if device.slot and places.express:
            port = f"{device.id}-port"
            properties: dict[str, object] = {"chassis": _CHASSIS + spot.slot, "port": spot.slot << 3}
            ports.append(Frontend(driver="pcie-root-port", id=port, properties=properties))
            given[port], spot = spot, Spot(index=-1, slot=0, bus=port)
        given[device.id] = spot
    return (*ports, *devices), given


def words(devices: Sequence[Device], given: Mapping[str, Spot]) -> Iterator[str]:
    """The arguments, in the order in which QEMU wants the things that refer to each other."""
    if any(isinstance(device, Frontend) and device.driver == "nvdimm" for device in devices):
        yield from ("-machine", "nvdimm=on")
    for kind in (Object, BlockNode, SocketChardev, Frontend):
        for device in devices:
            if isinstance(device, kind):
                yield from _words(device, given)


def _words(device: Device, given: Mapping[str, Spot]) -> tuple[str, str]:
    match device:
        case Object():
            return "-object", compact(object_properties(device))
        case BlockNode():
            return "-blockdev", compact(node_options(device))
        case SocketChardev():
            return "-chardev", chardev_options(device)
        case Frontend():
            return "-device", compact(placed(device, given.get(device.id)))
        case _ as never:
            assert_never(never)


def placed(device: Frontend, spot: Spot | None) -> dict[str, object]:
    """The properties of a device at its place."""
    if spot is None:
        return device_properties(device)
    properties = device_properties(device, spot.bus)
    head = {key: properties.pop(key) for key in ("driver", "id", "bus")}
    return {**head, "addr": f"0x{spot.slot:x}", **properties}
