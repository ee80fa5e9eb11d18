"""A lane's devices, sorted out: front ends, and what stands behind each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nvlane.libvirt.markup import Node
from nvlane.libvirt.match import USER_ALIAS
from nvlane.libvirt.record import Notice
from nvlane.model.device import BlockNode, Device, Frontend, Object, SocketChardev


def alias(device_id: str) -> str:
    """The id that a first-class device has in QEMU: libvirt lets users name devices since 3.9, with this prefix."""
    return USER_ALIAS + device_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """Part of a lane as libvirt's own XML.

    `devices` go into `<devices>`. `covers` are the ids and node names of all devices that it stands for; `names` the
    ids of front ends with those that they have in QEMU. `threads` are new iothreads, `memory` the KiB of a memory
    device. `overrides` are properties that libvirt has no XML for, by alias (`<qemu:override>`, libvirt 8.2).
    """

    devices: tuple[Node, ...]
    covers: frozenset[str]
    names: Mapping[str, str]
    threads: tuple[int, ...] = ()
    memory: int = 0
    overrides: Mapping[str, Mapping[str, str | int | bool]] = field(default_factory=dict)
    notes: tuple[Notice, ...] = ()


class LaneDevices:
    """Look-ups among a lane's devices."""

    def __init__(self, devices: Sequence[Device]) -> None:
        self.devices = tuple(devices)
        self.frontends = tuple(d for d in devices if isinstance(d, Frontend))
        self._objects = {d.id: d for d in devices if isinstance(d, Object)}
        self._nodes = {d.node_name: d for d in devices if isinstance(d, BlockNode)}
        self._chardevs = {d.id: d for d in devices if isinstance(d, SocketChardev)}

    def object(self, frontend: Frontend, key: str) -> Object | None:
        return self._objects.get(str(frontend.properties.get(key, "")))

    def drive(self, frontend: Frontend) -> BlockNode | None:
        return self._nodes.get(str(frontend.properties.get("drive", "")))

    def chardev(self, frontend: Frontend) -> SocketChardev | None:
        return self._chardevs.get(str(frontend.properties.get("chardev", "")))

    def riders(self, frontend: Frontend) -> tuple[Frontend, ...]:
        """The front ends on a bus of this one: 'scsi.0' is a bus of 'scsi', and an nvme controller's has its name."""
        return tuple(
            other for other in self.frontends if str(other.properties.get("bus", "")).partition(".")[0] == frontend.id
        )

    def heads(self) -> tuple[Frontend, ...]:
        """The front ends that are on no other one's bus."""
        riding = {rider.id for frontend in self.frontends for rider in self.riders(frontend)}
        return tuple(frontend for frontend in self.frontends if frontend.id not in riding)


def only(properties: Mapping[str, object], *names: str) -> bool:
    """Whether a device has no property but these: one that libvirt cannot say sends it to the command line."""
    return properties.keys() <= set(names)


def name_of(device: Device) -> str:
    return device.node_name if isinstance(device, BlockNode) else device.id
