"""Hot-plug: the QMP commands that bring a typed device into a running machine, and those that take it out
again.

They are values; `apply` sends them. A front end leaves only when the guest lets it go, so its removal is a
request, and the parts behind it follow once DEVICE_DELETED has told that the front end is gone
(qapi/qdev.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from nvlane.model.device import BlockNode, Device, Frontend, Object, SocketChardev
from nvlane.qemu.syntax import chardev_backend, device_properties, node_options, object_properties


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One QMP command. `gone` is the id of the device whose DEVICE_DELETED has to come before the next
    one."""

    execute: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    gone: str = ""


def hot_plug(device: Device, port: str = "") -> Command:
    """Add one device. `port` is the bus for a front end that asked for a slot: a free root port, or
    'pci.0'."""
    match device:
        case Object():
            return Command(execute="object-add", arguments=object_properties(device))
        case BlockNode():
            return Command(execute="blockdev-add", arguments=node_options(device))
        case SocketChardev():
            return Command(execute="chardev-add", arguments=chardev_backend(device))
        case Frontend():
            return Command(execute="device_add", arguments=device_properties(device, port))
        case _ as never:
            assert_never(never)


def hot_unplug(device: Device) -> Command:
    """Take one device out again."""
    match device:
        case Object():
            return Command(execute="object-del", arguments={"id": device.id})
        case BlockNode():
            return Command(execute="blockdev-del", arguments={"node-name": device.node_name})
        case SocketChardev():
            return Command(execute="chardev-remove", arguments={"id": device.id})
        case Frontend():
            return Command(execute="device_del", arguments={"id": device.id}, gone=device.id)
        case _ as never:
            assert_never(never)


def unplug_order(devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """The order of removal: the reverse of that of plugging, without the front ends that sit on the bus of
    another one of them, for those leave the machine with it."""
    names = {device.id for device in devices if isinstance(device, Frontend)}

    def rides(device: Device) -> bool:
        return isinstance(device, Frontend) and _parent(device) in names

    return tuple(device for device in reversed(devices) if not rides(device))


def _parent(device: Frontend) -> str:
    """The id of the device whose bus this one names: 'scsi.0' is a bus of 'scsi', and an nvme controller's
    bus bears the controller's own name."""
    return str(device.properties.get("bus", "")).partition(".")[0]
