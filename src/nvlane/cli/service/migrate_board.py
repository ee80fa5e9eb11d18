"""The board of a second QEMU: to a guest that moves, every slot and every port must be where it was.

The command line gives out root ports in the order of the devices; a lane that was attached has the port that was free
then. Where both come to the same the machine moves with what it has now.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from nvlane.model.device import Device, MachineDevice
from nvlane.qemu import inspect
from nvlane.qemu.board import Board, slot_buses
from nvlane.qemu.inspect import Monitor


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NextBoard:
    """The machine to start, with the version of the board that the guest was started on, which a newer QEMU would
    replace by its own; and the ids of the devices that would come to stand elsewhere on it."""

    machine: MachineDevice
    displaced: tuple[str, ...]


def next_board(monitor: Monitor, machine: MachineDevice, devices: Sequence[Device], *, changed: bool) -> NextBoard:
    """`changed`: lanes were attached or detached since the machine was started."""
    machine = dataclasses.replace(machine, machine_type=inspect.machine_type(monitor))
    buses = slot_buses(machine, tuple(devices))
    if not Board.of(machine.machine_type).ports:
        # On the one bus of a conventional board QEMU gives out numbers, in the order of creation.
        return NextBoard(machine=machine, displaced=tuple(buses) if changed else ())
    ours = [name for name in inspect.device_types(monitor, "pcie-root-port") if name.removeprefix("port").isdecimal()]
    machine = dataclasses.replace(machine, root_ports=len(ours) - len(buses))
    there = {name: inspect.parent_bus(monitor, name).rpartition("/")[2] for name in buses}
    return NextBoard(machine=machine, displaced=tuple(name for name, bus in buses.items() if there[name] != bus))
