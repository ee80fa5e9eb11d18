"""What stands on every board beside the lanes: ports for hot-plug, console, channels, entropy, network, boot
disk.

All of it is typed devices again, so that it is rendered like the lanes' own. The addresses on the root bus
are fixed and high. QEMU gives devices without an address the lowest free one, and creates those of
`key=value` form (the user's further arguments) before those of JSON form (system/vl.c,
qemu_create_cli_devices): they never collide.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Final

from nvlane.model.device import BlockNode, BootDisk, Device, Frontend, MachineDevice, Object
from nvlane.model.errors import Refused

#: The channel of the QEMU guest agent and that of nvlane's probe, by the name that a guest sees.
AGENT_PORT: Final = "org.qemu.guest_agent.0"
PROBE_PORT: Final = "org.nvlane.probe.0"

#: Sockets of a machine, by the name of their chardev; each is `<runtime>/NAME.sock`.
CHANNELS: Final = ("qmp", "console", "agent", "probe")

#: Devices on the root bus for root ports: first those above the ones that QEMU hands out itself.
_PORT_SLOTS: Final = (*range(0x10, 0x1B), *range(0x02, 0x10))
_BOOT, _SERIAL, _ENTROPY, _NETWORK = (f"0x{slot:x}" for slot in (0x1B, 0x1C, 0x1D, 0x1E))
_FUNCTIONS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """The kind of root bus. i440fx ('pc') has PCI only: its slots take hot-plugged devices without a port."""

    root_bus: str
    ports: bool

    @classmethod
    def of(cls, machine_type: str) -> Board:
        conventional = machine_type == "pc" or machine_type.startswith("pc-i440fx")
        return cls(root_bus="pci.0", ports=False) if conventional else cls(root_bus="pcie.0", ports=True)


def port_id(number: int) -> str:
    return f"port{number}"


def port_places() -> tuple[tuple[int, int], ...]:
    """Device and function of every root port that a board takes, in the order in which they are given out."""
    return tuple(product(_PORT_SLOTS, range(_FUNCTIONS)))


def slot_buses(machine: MachineDevice, devices: tuple[Device, ...]) -> dict[str, str]:
    """The bus of every device that asked for a slot, by device id: a port each, or the root bus where there
    are none."""
    board = Board.of(machine.machine_type)
    asking = [device.id for device in devices if isinstance(device, Frontend) and device.slot]
    return {name: port_id(number) if board.ports else board.root_bus for number, name in enumerate(asking)}


def root_ports(machine: MachineDevice, devices: tuple[Device, ...]) -> tuple[Frontend, ...]:
    """A PCIe root port for each device with a slot, and `machine.root_ports` empty ones. Eight share a device
    number.

    Raises Refused when the root bus has no room.
    """
    if not Board.of(machine.machine_type).ports:
        return ()
    wanted = len(slot_buses(machine, devices)) + machine.root_ports
    places = port_places()
    if wanted > len(places):
        raise Refused(
            f"{machine.name} needs {wanted} PCIe root ports, and a board has room for {len(places)}",
            remedy="spread the lanes over several machines, or put several namespaces on one controller",
        )
    return tuple(_root_port(number, *places[number], last=wanted - 1) for number in range(wanted))


def _root_port(number: int, slot: int, function: int, *, last: int) -> Frontend:
    # Function 0 must announce that others follow (PCI Local Bus 3.0, 6.2.1, header type bit 7).
    first_of_several = function == 0 and number < last
    properties: dict[str, object] = {"bus": "pcie.0", "addr": f"0x{slot:x}.0x{function:x}"}
    if first_of_several:
        properties["multifunction"] = True
    # Chassis and slot number name the physical slot in the guest (/sys/bus/pci/slots); a pair must be unique.
    properties |= {"chassis": number + 1, "slot": number + 1, "port": number}
    return Frontend(driver="pcie-root-port", id=port_id(number), properties=properties)


def channels(machine: MachineDevice) -> tuple[Device, ...]:
    """The serial console, and the ports of the guest agent and of the probe."""
    bus = Board.of(machine.machine_type).root_bus
    return (
        Frontend(driver="isa-serial", id="serial0", properties={"chardev": "console"}),
        Frontend(driver="virtio-serial-pci", id="channels", properties={"bus": bus, "addr": _SERIAL}),
        _port("agent", 1, AGENT_PORT),
        _port("probe", 2, PROBE_PORT),
    )


def _port(chardev: str, number: int, name: str) -> Frontend:
    properties = {"bus": "channels.0", "nr": number, "chardev": chardev, "name": name}
    return Frontend(driver="virtserialport", id=f"{chardev}-port", properties=properties)


def entropy(machine: MachineDevice) -> tuple[Device, ...]:
    bus = Board.of(machine.machine_type).root_bus
    return (
        Object(qom_type="rng-builtin", id="rng0"),
        Frontend(driver="virtio-rng-pci", id="entropy", properties={"rng": "rng0", "bus": bus, "addr": _ENTROPY}),
    )


def network(machine: MachineDevice) -> tuple[Device, ...]:
    """The card; its other end is a `-netdev`, which is no device."""
    if machine.network == "none":
        return ()
    bus = Board.of(machine.machine_type).root_bus
    # romfile '' leaves out the network boot ROM, which the firmware would load and run.
    properties = {"netdev": "net0", "bus": bus, "addr": _NETWORK, "romfile": ""}
    return (Frontend(driver="virtio-net-pci", id="network", properties=properties),)


def display(machine: MachineDevice) -> tuple[Device, ...]:
    if machine.display == "none":
        return ()
    return (
        Frontend(driver="VGA", id="video"),
        Frontend(driver="qemu-xhci", id="input"),
        Frontend(driver="usb-kbd", id="keyboard", properties={"bus": "input.0"}),
        Frontend(driver="usb-tablet", id="pointer", properties={"bus": "input.0"}),
    )


def boot_disk(machine: MachineDevice) -> tuple[Device, ...]:
    if not isinstance(machine.boot, BootDisk):
        return ()
    # QEMU's `file` driver takes no block devices, `host_device` nothing else (block/file-posix.c).
    protocol = "host_device" if machine.boot.path.startswith("/dev/") else "file"
    bus = Board.of(machine.machine_type).root_bus
    return (
        BlockNode(driver=protocol, node_name="boot-file", options={"filename": machine.boot.path}),
        BlockNode(driver=machine.boot.format, node_name=machine.boot.node, options={"file": "boot-file"}),
        Frontend(
            driver="virtio-blk-pci",
            id="boot-disk",
            properties={"drive": machine.boot.node, "bootindex": 0, "bus": bus, "addr": _BOOT},
        ),
    )


def board_devices(machine: MachineDevice) -> tuple[Device, ...]:
    """Everything but the root ports, which depend on the lanes' devices."""
    return (*channels(machine), *entropy(machine), *network(machine), *display(machine), *boot_disk(machine))
