"""A libvirt domain as it stands, read in one connection: definition, run, capabilities, and whose its QEMU is."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass
from typing import Final

from nvlane.apply.store import HOST_RUN
from nvlane.cli.service.record import DomainPlace
from nvlane.libvirt.capabilities import LibvirtCapabilities, capabilities
from nvlane.libvirt.obstacles import security_models
from nvlane.libvirt.outline import Outline, outline, owner_of_qemu
from nvlane.model.device import MachineDevice
from nvlane.model.errors import HostError
from nvlane.qemu.inspect import device_types, free_ports, takes_nvdimms
from nvlane.spec.machine import Accelerator, Machine
from nvlane.wire.libvirt import Domain, Libvirt

_RUN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSight:
    """`definition` is what it starts from next ('' for a transient domain), `running` its XML while it runs ('' else);
    `now` what it is right now; `owner` user and group of its QEMU, None where that is our own user. `busy` are root
    ports (QEMU's bus, and the slot on it) with something behind them, which the XML may not show."""

    place: DomainPlace
    definition: str
    running: str
    now: Outline
    capabilities: LibvirtCapabilities
    owner: tuple[int, int] | None
    busy: frozenset[tuple[str, int]] = frozenset()
    security: frozenset[str] = frozenset()

    @property
    def run(self) -> str:
        """The name of nvlane's run: the domain's, where that can be one."""
        name = self.place.name
        return name if _RUN_NAME.fullmatch(name) and name != HOST_RUN else f"domain-{self.place.uuid[:8]}"

    def machine(self, wanted: Machine) -> Machine:
        """The [machine] table with what the domain is."""
        return Machine(
            name=self.run,
            memory=self.now.memory,
            cpus=self.now.cpus,
            type=self.now.machine,
            accelerator=Accelerator.KVM if self.now.kind == "kvm" else Accelerator.TCG,
            qemu=self.now.emulator or self.capabilities.emulator,
            sandbox=wanted.sandbox,
        )

    def device(self, runtime: str) -> MachineDevice:
        """The machine as the records and the lanes know it."""
        return MachineDevice(
            name=self.run,
            uuid=self.place.uuid,
            machine_type=self.now.machine,
            accelerator="kvm" if self.now.kind == "kvm" else "tcg",
            cpu_model="",
            memory=self.now.memory,
            cpus=self.now.cpus,
            runtime=f"{runtime}/{self.run}",
            needs=self.now.room,
        )


def see(uri: str, name: str) -> DomainSight:
    """Read it. Raises HostError; also for a domain of another host, where nvlane can prepare nothing."""
    with Libvirt.connect(uri) as libvirt:
        if not libvirt.is_local:
            raise HostError(
                f"the domains of {libvirt.uri} run on another host, and nvlane prepares the host that it runs on",
                remedy="qemu+ssh://[user@]host/system leads to the nvlane of that host, which prepares it",
            )
        domain = libvirt.domain(name)
        running = domain.xml(inactive=False) if domain.is_active else ""
        definition = domain.xml(inactive=True) if domain.is_persistent else ""
        now = outline(running or definition)
        if running:  # libvirt turns it on for a domain's first NVDIMM, and a <qemu:commandline> may do so as well
            now = dataclasses.replace(now, room=dataclasses.replace(now.room, nvdimm=takes_nvdimms(domain)))
        ours, qemu = libvirt.versions()
        text = libvirt.domain_capabilities(now.emulator, now.architecture, now.machine, now.kind)
        host = libvirt.capabilities()
        owner = now.owner or owner_of_qemu(host, now.kind)
        return DomainSight(
            place=DomainPlace(uri=libvirt.uri, uuid=domain.uuid, name=domain.name),
            definition=definition,
            running=running,
            now=now,
            capabilities=capabilities(ours, qemu, text, session=libvirt.is_session),
            owner=None if owner is None or owner[0] == os.geteuid() else owner,
            security=security_models(host),
            busy=_busy(domain) if running else frozenset(),
        )


def _busy(domain: Domain) -> frozenset[tuple[str, int]]:
    """libvirt names a port and the bus behind it alike."""
    return frozenset((port, 0) for port in set(device_types(domain, "pcie-root-port")) - set(free_ports(domain)))
