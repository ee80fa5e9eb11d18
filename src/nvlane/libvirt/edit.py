"""Gives a lane to a domain's XML, and takes it away again.

    edited = give(xml, devices, needs, capabilities, "lane0", standing=records_of_lanes_that_it_has)
    ... the diff of xml and edited.xml is shown; on a yes the domain is defined with edited.xml ...
    record = settle(edited.record, how_libvirt_shows_it_now)     # journaled
    taken = take(xml_now, record, standing=records_of_the_other_lanes)

Any order of taking ends with the bytes that were there before the first lane; what others need stays until the last of
them goes. An XML that was changed in the meantime, by libvirt or by a person, keeps those changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nvlane.libvirt import memory
from nvlane.libvirt.capabilities import LibvirtCapabilities
from nvlane.libvirt.commandline import place, words
from nvlane.libvirt.disks import Renderer
from nvlane.libvirt.document import parse_domain
from nvlane.libvirt.editor import Editor
from nvlane.libvirt.lane import LaneDevices, Rendered, name_of
from nvlane.libvirt.markup import Node, node
from nvlane.libvirt.places import Places, ids
from nvlane.libvirt.record import Edited, Notice, Record, Taken
from nvlane.libvirt.removal import remove_all
from nvlane.libvirt.render import first_class
from nvlane.model.device import Device, Frontend, MemoryNeeds
from nvlane.model.errors import Refused

#: Where elements of `<devices>` go: behind the last of the same kind, or of one that libvirt writes before it.
_ORDER = ("emulator", "disk", "controller", "filesystem", "interface", "serial", "console", "channel", "tpm", "input")
_LATER = ("graphics", "sound", "audio", "video", "hostdev", "redirdev", "watchdog", "memballoon", "rng", "memory")


def give(
    xml: str,
    devices: Sequence[Device],
    needs: MemoryNeeds,
    capabilities: LibvirtCapabilities,
    lane: str,
    *,
    standing: Sequence[Record] = (),
    hugepage: int = 0,
) -> Edited:
    """The XML of a domain with one lane more.

    `xml` is libvirt's inactive XML (`VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE`), so that all devices have their
    addresses. `standing` are the records of the lanes that it has already. `hugepage` (bytes) asks for memory in pages
    of that size. Raises Refused when there is no place for a device, or an id is taken.
    """
    root = parse_domain(xml)
    places = Places(root)
    split = sort_out(devices, places, capabilities)
    refuse_taken_ids(split, places)
    editor = Editor(xml, standing)
    if needs.shared or hugepage:
        memory.share(editor, hugepage)
    if needs.hotplug:
        memory.make_room(editor, needs.hotplug, needs.slots)
    for part in split.parts:
        if part.memory:
            memory.add_device_memory(editor, part.memory)
    placed, given = place(split.commandline, places)
    _add_threads(editor, split.parts)
    _add_ports(editor, places)
    for part in split.parts:
        for element in part.devices:
            editor.insert("devices", [element], after=_neighbours(element.tag))
    _add_words(editor, tuple(words(placed, given)))
    _add_overrides(editor, split.parts)
    names = {key: value for part in split.parts for key, value in part.names.items()}
    left = [device.id for device in split.commandline if isinstance(device, Frontend)]
    return Edited(
        xml=editor.xml,
        record=Record(lane=lane, before=xml, after=editor.xml, additions=tuple(editor.additions)),
        notes=(*(note for part in split.parts for note in part.notes), *_notes(places, left)),
        names={**names, **{name: name for name in left}},
        first_class=tuple(names),
        commandline=tuple(left),
        ports=tuple(places.new_ports),
    )


def settle(record: Record, shown: str) -> Record:
    """The record with libvirt's own form of the XML: `shown` is what it shows right after it has defined it."""
    return replace(record, settled=shown)


def take(xml: str, record: Record, *, standing: Sequence[Record] = ()) -> Taken:
    """The XML without the lane. `standing` are the records of the lanes that stay."""
    if xml in (record.after, record.settled):
        return Taken(xml=record.before)
    parse_domain(xml)
    changed, notes = remove_all(xml, record, standing)
    return Taken(xml=changed, notes=notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A lane's devices: what this libvirt has XML for, and what goes through `<qemu:commandline>`."""

    parts: tuple[Rendered, ...]
    commandline: tuple[Device, ...]


def sort_out(
    devices: Sequence[Device], places: Places, capabilities: LibvirtCapabilities, *, hot: bool = False
) -> Split:
    """A front end with all that stands behind it is either first-class or not at all. `hot` for a running domain."""
    lane = LaneDevices(devices)
    at = Renderer(lane=lane, places=places, capabilities=capabilities, hot=hot)
    parts = tuple(part for head in lane.heads() if (part := first_class(head, at)) is not None)
    covered = frozenset[str]().union(*(part.covers for part in parts))
    return Split(parts=parts, commandline=tuple(d for d in lane.devices if name_of(d) not in covered))


def refuse_taken_ids(split: Split, places: Places) -> None:
    """Raises Refused for an id that the domain has already."""
    wanted = {value for part in split.parts for value in part.names.values()}
    wanted |= {name_of(device) for device in split.commandline}
    if both := sorted(wanted & ids(places.root)):
        raise Refused(
            f"the domain has a device with the id '{both[0]}' already",
            remedy="take the lane away that has it, or give the new one another id",
        )


def _neighbours(tag: str) -> tuple[str, ...]:
    if tag in _ORDER:
        return (tag,) if tag in ("disk", "controller") else _ORDER[: _ORDER.index(tag) + 1]
    return (*_ORDER, *_LATER[: _LATER.index(tag) + 1]) if tag in _LATER else ()


def _add_ports(editor: Editor, places: Places) -> None:
    for index in places.new_ports:
        for earlier in editor.standing_ports():
            if earlier.port < index:
                editor.claim(earlier)
        port = node("controller", type="pci", index=index, model="pcie-root-port")
        editor.insert("devices", [port], after=("controller",), port=index)


def _add_threads(editor: Editor, parts: Sequence[Rendered]) -> None:
    for number in (number for part in parts for number in part.threads):
        editor.raise_amount("", "iothreads", 1, 0, after=("vcpus", "vcpu"))
        container = editor.container("", "iothreadids", after=("iothreads",))
        editor.insert(container, [node("iothread", id=number)])


def _add_words(editor: Editor, arguments: tuple[str, ...]) -> None:
    if arguments:
        container = editor.container("", "qemu:commandline")
        prefix = editor.at(container).tag.removesuffix("commandline")
        # An argument goes behind the other arguments and before the environment, where somebody has written both.
        editor.insert(container, [node(f"{prefix}arg", value=word) for word in arguments], after=("arg",))


def _add_overrides(editor: Editor, parts: Sequence[Rendered]) -> None:
    for part in parts:
        for alias, properties in part.overrides.items():
            if properties:
                container = editor.container("", "qemu:override")
                prefix = editor.at(container).tag.removesuffix("override")
                editor.insert(container, [_override(prefix, alias, properties)])


def _override(prefix: str, alias: str, properties: Mapping[str, str | int | bool]) -> Node:
    kinds = {bool: "bool", int: "unsigned", str: "string"}
    items = [
        node(f"{prefix}property", name=name, type=kinds[type(value)], value=str(value).lower())
        for name, value in properties.items()
    ]
    return node(f"{prefix}device", node(f"{prefix}frontend", *items), alias=alias)


def _notes(places: Places, commandline: Sequence[str]) -> tuple[Notice, ...]:
    notes: list[Notice] = []
    if places.new_ports:
        numbers = ", ".join(str(index) for index in places.new_ports)
        text = f"no PCIe root port is free in the domain: nvlane adds the controller with index {numbers}"
        notes.append(Notice(code="ports-added", text=text))
    if commandline:
        text = "libvirt has no XML for " + ", ".join(commandline) + ": it marks the domain as tainted (custom-argv)"
        notes.append(Notice(code="commandline", text=text))
    return tuple(notes)
