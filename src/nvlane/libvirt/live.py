"""A lane for a running domain: fragments for `virDomainAttachDeviceFlags`, and the rest through QEMU's monitor.

`<qemu:commandline>` cannot be changed while a domain runs. What libvirt has no XML for is hot-plugged through
`virDomainQemuMonitorCommand` with `qemu.hotplug.hot_plug(device, bus)`, in the order given here. libvirt does not know
of such a device; the root port that it is on is therefore the last free one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nvlane.libvirt import memory
from nvlane.libvirt.capabilities import LibvirtCapabilities
from nvlane.libvirt.document import Element, parse_domain
from nvlane.libvirt.edit import refuse_taken_ids, sort_out
from nvlane.libvirt.markup import Node, render
from nvlane.libvirt.place import kib
from nvlane.libvirt.places import Places
from nvlane.libvirt.record import Notice
from nvlane.model.device import Device, Frontend, MemoryNeeds
from nvlane.model.errors import Refused
from nvlane.model.size import KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """One device as XML, for attaching and for detaching, and the id that it has in QEMU."""

    xml: str
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What brings a lane into a running domain, in this order; out again in the reverse one.

    `threads` are iothreads (`virDomainAddIOThread`), `fragments` devices that libvirt attaches, `devices` those that
    go through the monitor. `buses` has for each front end of the latter that needs a place QEMU's id of a free bus.
    `names` has for each front end's id the one that it has in QEMU.
    """

    fragments: tuple[Fragment, ...]
    devices: tuple[Device, ...]
    names: Mapping[str, str]
    threads: tuple[int, ...] = ()
    buses: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Notice, ...] = ()


def live(
    xml: str,
    devices: Sequence[Device],
    capabilities: LibvirtCapabilities,
    needs: MemoryNeeds | None = None,
    *,
    busy: frozenset[tuple[str, int]] = frozenset(),
) -> Live:
    """How to bring a lane into the running domain that `xml` (its active XML) describes.

    `busy` are places, as (QEMU's bus id, slot), that the XML does not show: of devices that were plugged through the
    monitor before. Raises Refused for what a running domain cannot be given, with what to do.
    """
    root = parse_domain(xml)
    _refuse_memory(root, needs or MemoryNeeds())
    places = Places(root, grow=False, busy=busy)
    split = sort_out(devices, places, capabilities, hot=True)
    refuse_taken_ids(split, places)
    left = [device for device in split.commandline if isinstance(device, Frontend)]
    names = {key: value for part in split.parts for key, value in part.names.items()}
    return Live(
        fragments=tuple(_fragment(element) for part in split.parts for element in part.devices),
        devices=split.commandline,
        names={**names, **{device.id: device.id for device in left}},
        threads=tuple(number for part in split.parts for number in part.threads),
        buses={device.id: places.hot_spot(device.driver).bus for device in left if device.slot},
        notes=tuple(note for part in split.parts for note in part.notes),
    )


def _fragment(element: Node) -> Fragment:
    alias = next((child.attributes["name"] for child in element.children if child.tag == "alias"), "")
    return Fragment(xml=render(element), alias=alias)


def _refuse_memory(root: Element, needs: MemoryNeeds) -> None:
    if needs.shared and not memory.is_shared(root):
        raise Refused(
            "the lane needs shared memory, and the domain runs with private memory, which no target can reach",
            remedy="attach it with --config, which sets <memoryBacking>, and start the domain anew",
        )
    if not needs.hotplug:
        return
    room = root.find("maxMemory")
    if room is None or (kib(room) - memory.memory_of(root)) * KIB < needs.hotplug // 2:
        raise Refused(
            "the lane is a memory device, and the domain runs without room for it in <maxMemory>",
            remedy="attach it with --config, which makes room, and start the domain anew",
        )
