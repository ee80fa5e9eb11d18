"""What nvlane asks of a domain's XML: the machine that it is, who runs its QEMU, and how its guest is reached."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from nvlane.model.device import MemoryNeeds
from nvlane.model.errors import HostError
from nvlane.model.size import KIB

AGENT: Final = "org.qemu.guest_agent.0"
PROBE: Final = "org.nvlane.probe.0"
_UNITS: Final = {"": KIB, "b": 1, "bytes": 1, "KB": 1000, "k": KIB, "KiB": KIB, "MB": 10**6, "M": KIB**2, "MiB": KIB**2}
_UNITS_LARGE: Final = {"GB": 10**9, "G": KIB**3, "GiB": KIB**3, "TB": 10**12, "T": KIB**4, "TiB": KIB**4}
_OWNER: Final = re.compile(r"\+?(\d+):\+?(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """A virtio-serial channel: its name in the guest, its socket on the host ('' while the domain does not run), and
    whether the guest has it open, where libvirt knows ('connected')."""

    name: str
    path: str
    state: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A domain. `kind` is 'kvm' or 'qemu'; sizes in bytes; `room` is what it has for lanes that come while it runs
    (shared memory; slots and address space for memory devices). `owner` is the user and group of its QEMU where the
    domain names them."""

    name: str
    uuid: str
    kind: str
    emulator: str
    architecture: str
    machine: str
    memory: int
    cpus: int
    room: MemoryNeeds
    owner: tuple[int, int] | None = None
    channels: tuple[Channel, ...] = field(default_factory=tuple)

    def channel(self, name: str) -> Channel | None:
        return next((channel for channel in self.channels if channel.name == name), None)


def outline(xml: str) -> Outline:
    """Read it. Raises HostError for what is no domain."""
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise HostError(f"libvirt's XML of the domain cannot be read: {error}") from error
    if root.tag != "domain":
        raise HostError(f"libvirt's XML of the domain begins with <{root.tag}>")
    system = root.find("os/type")
    memory = _size(root.find("memory"))
    return Outline(
        name=root.findtext("name", ""),
        uuid=root.findtext("uuid", ""),
        kind=root.get("type", ""),
        emulator=root.findtext("devices/emulator", ""),
        architecture="" if system is None else system.get("arch", ""),
        machine="" if system is None else system.get("machine", ""),
        memory=memory,
        cpus=int(root.findtext("vcpu", "1") or 1),
        room=_room(root, memory),
        owner=_owner(root),
        channels=tuple(_channels(root)),
    )


def owner_of_qemu(capabilities: str, kind: str) -> tuple[int, int] | None:
    """The user and group that this libvirt runs QEMU as, from the host's capabilities; None where it does not say."""
    root = ElementTree.fromstring(capabilities)
    for model in root.iterfind("host/secmodel"):
        if model.findtext("model") != "dac":
            continue
        labels = {label.get("type"): label.text or "" for label in model.iterfind("baselabel")}
        found = _OWNER.fullmatch(labels.get(kind) or labels.get("kvm") or "")
        if found:
            return int(found[1]), int(found[2])
    return None


def _room(root: ElementTree.Element, memory: int) -> MemoryNeeds:
    most = root.find("maxMemory")
    has_nvdimm = any(device.get("model") == "nvdimm" for device in root.iterfind("devices/memory"))
    taken = len(root.findall("devices/memory"))
    access = root.find("memoryBacking/access")
    cells = root.findall("cpu/numa/cell")
    shared = access is not None and access.get("mode") == "shared"
    return MemoryNeeds(
        shared=shared or (bool(cells) and all(cell.get("memAccess") == "shared" for cell in cells)),
        slots=max(0, int(most.get("slots", "0")) - taken) if most is not None else 0,
        hotplug=max(0, _size(most) - memory),
        nvdimm=has_nvdimm,
    )


def _size(element: ElementTree.Element | None) -> int:
    """A size with its unit (formatdomain: KiB where none is named)."""
    if element is None:
        return 0
    unit = element.get("unit", "")
    return int(element.text or 0) * {**_UNITS, **_UNITS_LARGE}.get(unit, KIB)


def _owner(root: ElementTree.Element) -> tuple[int, int] | None:
    for label in root.iterfind("seclabel"):
        if label.get("model") == "dac":
            found = _OWNER.fullmatch(label.findtext("label", ""))
            return (int(found[1]), int(found[2])) if found else None
    return None


def _channels(root: ElementTree.Element) -> list[Channel]:
    found = []
    for channel in root.iterfind("devices/channel[@type='unix']"):
        target, source = channel.find("target"), channel.find("source")
        if target is not None and target.get("type") == "virtio":
            path = "" if source is None else source.get("path", "")
            found.append(Channel(name=target.get("name", ""), path=path, state=target.get("state", "")))
    return found
