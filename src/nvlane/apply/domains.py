"""libvirt as the operations on domains need it: the `Domains` of a real host.

Each call has a connection of its own, so a daemon that was started anew in between is simply connected to again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.etree import ElementTree

from nvlane.apply.operations.found import FoundDomain
from nvlane.libvirt.edit import take
from nvlane.libvirt.record import Record
from nvlane.model.codec import decode
from nvlane.model.device import BlockNode, Device, Frontend
from nvlane.model.errors import HostError
from nvlane.plan.domain_step import DomainFragment, DomainPart, DomainThread, PlugDomain, UnplugDomain
from nvlane.qemu import inspect
from nvlane.qemu.board import Board
from nvlane.qemu.hotplug import hot_plug, hot_unplug, unplug_order
from nvlane.wire.libvirt import Domain, DomainGone, Libvirt, MonitorRefused

#: Seconds for a guest to let a device go, and between two looks: libvirt's event for it needs a loop of its own.
UNPLUG_DEADLINE: Final = 60.0
_AGAIN: Final = 0.2


class LibvirtDomains:
    """It holds no state."""

    def look(self, uri: str, uuid: str) -> FoundDomain:
        with Libvirt.connect(uri) as libvirt:
            try:
                domain = libvirt.domain(uuid)
                return FoundDomain(xml=domain.xml(inactive=True), number=domain.number)
            except DomainGone:
                return FoundDomain(xml="")

    def has(self, step: PlugDomain | UnplugDomain) -> FoundDomain:
        with Libvirt.connect(step.uri) as libvirt:
            try:
                domain = libvirt.domain(step.uuid)
                number = domain.number
                has = _present(domain, step.parts) if number >= 0 else ()
                return FoundDomain(xml=domain.xml(inactive=True), number=number, has=has)
            except DomainGone:
                return FoundDomain(xml="")

    def define(self, uri: str, uuid: str, xml: str) -> str:
        with Libvirt.connect(uri) as libvirt:
            libvirt.domain(uuid)  # else the definition would bring a domain back that somebody has undefined
            return libvirt.define(xml).xml(inactive=True)

    def without(
        self, xml: str, additions: Mapping[str, object], others: Mapping[str, Mapping[str, object]]
    ) -> tuple[str, tuple[str, ...]]:
        standing = [decode(Record, other) for other in others.values()]
        taken = take(xml, decode(Record, additions), standing=standing)
        return taken.xml, tuple(notice.text for notice in taken.notes)

    def plug(self, step: PlugDomain) -> None:
        with _running(step.uri, step.uuid, step.name) as domain:
            there = _present(domain, step.parts)
            missing = [part for part in step.parts if _name(part) not in there]
            buses = _buses(domain, _devices(missing))
            for part in missing:
                if isinstance(part, DomainFragment):
                    domain.attach(part.xml)
                elif isinstance(part, DomainThread):
                    domain.add_iothread(part.number)
                else:
                    command = hot_plug(part, buses.get(_name(part), ""))
                    domain.execute(command.execute, command.arguments)

    def unplug(self, inverse: UnplugDomain) -> None:
        until = time.monotonic() + UNPLUG_DEADLINE
        with _running(inverse.uri, inverse.uuid, inverse.name) as domain:
            fragments = [part for part in reversed(inverse.parts) if isinstance(part, DomainFragment)]
            for fragment in fragments:
                if fragment.alias in _aliases(domain):
                    domain.detach(fragment.alias)
                    _wait_gone(domain, fragment, until)
            for part in inverse.parts:
                if isinstance(part, DomainThread) and _name(part) in inspect.present(domain):
                    domain.remove_iothread(part.number)
            for device in unplug_order(_devices(inverse.parts)):
                if _name(device) in inspect.present(domain):
                    _remove(domain, device, until)

    def start(self, uri: str, uuid: str) -> int:
        with Libvirt.connect(uri) as libvirt:
            domain = libvirt.domain(uuid)
            domain.start()
            return domain.number

    def stop(self, uri: str, uuid: str) -> None:
        with Libvirt.connect(uri) as libvirt:
            libvirt.domain(uuid).destroy()


@contextlib.contextmanager
def _running(uri: str, uuid: str, name: str) -> Iterator[Domain]:
    with Libvirt.connect(uri) as libvirt:
        domain = libvirt.domain(uuid)
        if not domain.is_active:
            raise HostError(f"the domain {name} does not run", remedy=f"virsh start {name}")
        yield domain


def _name(part: DomainPart) -> str:
    match part:
        case DomainFragment():
            return part.alias
        case DomainThread():
            return f"iothread{part.number}"  # libvirt src/qemu/qemu_command.c
        case BlockNode():
            return part.node_name
        case _:
            return part.id


def _devices(parts: Sequence[DomainPart]) -> tuple[Device, ...]:
    """What comes and goes by QMP."""
    return tuple(part for part in parts if not isinstance(part, DomainFragment | DomainThread))


def _present(domain: Domain, parts: Sequence[DomainPart]) -> tuple[str, ...]:
    """The names of those parts that the running domain has."""
    aliases = _aliases(domain)
    known = inspect.present(domain) if any(not isinstance(part, DomainFragment) for part in parts) else frozenset()
    return tuple(
        _name(part)
        for part in parts
        if (_name(part) in aliases if isinstance(part, DomainFragment) else _name(part) in known)
    )


def _aliases(domain: Domain) -> frozenset[str]:
    """The names that libvirt gives the devices of a running domain."""
    root = ElementTree.fromstring(domain.xml(inactive=False))
    return frozenset(alias.get("name", "") for alias in root.iterfind("devices/*/alias"))


def _buses(domain: Domain, devices: Sequence[Device]) -> dict[str, str]:
    """A free port for each front end that asks for a slot. libvirt does not learn of what is plugged by QMP and fills
    its ports from the first one on, so these are taken from the last one on."""
    asking = [device.id for device in devices if isinstance(device, Frontend) and device.slot]
    if not asking:
        return {}
    board = Board.of(inspect.machine_type(domain))
    if not board.ports:
        return dict.fromkeys(asking, board.root_bus)
    free = inspect.free_ports(domain)[::-1]
    if len(free) < len(asking):
        raise HostError(
            f"{domain.name} has {len(free)} free PCIe root ports, and {len(asking)} are needed",
            remedy="attach the lane with --config, which adds ports, and start the domain anew",
        )
    return dict(zip(asking, free, strict=False))


def _wait_gone(domain: Domain, fragment: DomainFragment, until: float) -> None:
    while fragment.alias in _aliases(domain):
        if time.monotonic() > until:
            raise _held(domain.name, fragment.alias)
        time.sleep(_AGAIN)


def _remove(domain: Domain, device: Device, until: float) -> None:
    """Send a removal; for a front end, wait until the guest has let it go."""
    command = hot_unplug(device)
    while True:
        try:
            domain.execute(command.execute, command.arguments)
        except MonitorRefused as error:
            # A front end is gone from the machine a moment before it lets go of what stands behind it.
            if "in use" in error.words and time.monotonic() < until:
                time.sleep(_AGAIN)
                continue
            if "in the process of unplug" not in error.words:
                raise
        break
    while command.gone and command.gone in inspect.device_ids(domain):
        if time.monotonic() > until:
            raise _held(domain.name, command.gone)
        time.sleep(_AGAIN)


def _held(name: str, what: str) -> HostError:
    return HostError(
        f"the guest of {name} did not let {what} go within {UNPLUG_DEADLINE:g} s",
        remedy="unmount and release it in the guest, then do it again",
    )
