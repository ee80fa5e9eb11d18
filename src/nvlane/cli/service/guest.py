"""The way into a running guest, and the verification of its lanes through it.

A guest is reached through its QEMU guest agent where it has one, and through the probe on its own port where it has
that; the built-in probe guest has the latter only. A guest that boots answers late, so both are tried in turns.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from nvlane.apply.initramfs import packaged_probe
from nvlane.cli.service.record import DomainPlace, MachineRecord
from nvlane.libvirt.outline import AGENT, PROBE, outline
from nvlane.model.claim import Claim, Evidence
from nvlane.model.device import DirectBoot
from nvlane.model.errors import HostError, WireError
from nvlane.qemu.inspect import Monitor
from nvlane.verify.agent import AgentGuest
from nvlane.verify.guest import Guest
from nvlane.verify.look import Look, Proof
from nvlane.verify.probe import ProbeGuest
from nvlane.verify.run import verify
from nvlane.wire.guest_agent import SocketAgent
from nvlane.wire.libvirt import Domain, Libvirt
from nvlane.wire.libvirt_agent import DomainAgent
from nvlane.wire.lines import DeadlineMissed
from nvlane.wire.qmp import Qmp

#: Seconds that a turn of one way takes before the other has one.
_TURN: Final = 2.0


#: One try to reach the guest, for so many seconds; None when it does not answer.
Way = Callable[[float], Guest | None]


def reach(record: MachineRecord, *, deadline: float) -> Guest:
    """Connect to the guest, waiting at most `deadline` seconds for it to boot. Raises WireError."""
    runtime = Path(record.machine.runtime)
    if _is_probe_guest(record):
        guest = ProbeGuest(runtime / "probe.sock")
        try:
            guest.wait_until_up(deadline=deadline)
        except WireError:
            guest.close()
            raise
        return guest
    ways: list[Way] = [
        lambda seconds: _by_agent(runtime, seconds),
        lambda seconds: by_probe(runtime / "probe.sock", seconds),
    ]
    return in_turns(record.name, ways, deadline, "`nvlane status` says where its console is")


def in_turns(name: str, ways: Sequence[Way], deadline: float, hint: str) -> Guest:
    """The guest by the first of these ways on which it answers. Raises DeadlineMissed."""
    until = time.monotonic() + deadline
    while True:
        for way in ways:
            found = way(min(_TURN, max(until - time.monotonic(), 0.1)))
            if found is not None:
                return found
        if time.monotonic() > until:
            raise DeadlineMissed(
                f"the guest of {name} did not come up within {deadline:g} s: neither a guest agent nor nvlane-probe "
                "answered",
                remedy=f"install qemu-guest-agent in the guest; {hint}. Then run nvlane verify {name}",
            )


def _is_probe_guest(record: MachineRecord) -> bool:
    boot = record.machine.boot
    return isinstance(boot, DirectBoot) and "/nvlane/guest/" in boot.initrd


def _by_agent(runtime: Path, deadline: float) -> Guest | None:
    try:
        agent = SocketAgent(runtime / "agent.sock", deadline=deadline)
        return AgentGuest(agent, packaged_probe(), deadline=deadline)
    except DeadlineMissed:
        return None  # not up yet, or none there: the caller has its own deadline


def by_probe(socket: Path, deadline: float) -> Guest | None:
    guest = ProbeGuest(socket)
    try:
        guest.wait_until_up(deadline=deadline)
    except DeadlineMissed:
        guest.close()
        return None
    return guest


def verify_claims(
    record: MachineRecord,
    claims: Iterable[Claim],
    *,
    write: bool,
    deadline: float,
    progress: Callable[[Evidence], None],
    reached: Callable[[], None] = lambda: None,
) -> tuple[tuple[Evidence, ...], tuple[Proof, ...]]:
    """Evidence for the claims, and the proofs that the guest wrote; `reached` is called when the guest answers."""
    with contextlib.ExitStack() as connections:
        monitor: Monitor
        if record.domain is not None:
            running = connections.enter_context(running_domain(record.domain))
            monitor = running
            guest = connections.enter_context(reach_domain(record.name, running, deadline=deadline))
        else:
            guest = connections.enter_context(reach(record, deadline=deadline))
            monitor = connections.enter_context(Qmp.connect(record.qmp))
        reached()
        look = Look(guest=guest, monitor=monitor, write=write)
        evidence = verify(claims, look, progress=progress)
        return evidence, tuple(look.proofs)


@contextlib.contextmanager
def running_domain(place: DomainPlace) -> Iterator[Domain]:
    """A libvirt domain that runs. Raises HostError."""
    with Libvirt.connect(place.uri) as libvirt:
        domain = libvirt.domain(place.uuid)
        if not domain.is_active:
            raise HostError(f"the domain {place.name} does not run", remedy=f"virsh start {place.name}")
        yield domain


def reach_domain(name: str, domain: Domain, *, deadline: float) -> Guest:
    """The guest of a libvirt domain: by the guest agent, whose channel libvirt holds, or by the probe on a channel of
    its own."""
    seen = outline(domain.xml(inactive=False))
    agent, probe = seen.channel(AGENT), seen.channel(PROBE)
    ways: list[Way] = []
    if agent is not None:
        ways.append(lambda seconds: _by_domain_agent(domain, seconds))
    if probe is not None:
        socket = Path(probe.path)
        ways.append(lambda seconds: by_probe(socket, seconds))
    if not ways:
        raise HostError(
            f"the domain {domain.name} has no channel for a guest agent",
            remedy=f"give it one: virt-xml {domain.name} --add-device --channel unix,target.type=virtio,"
            f"target.name={AGENT}; and install qemu-guest-agent in its guest",
        )
    return in_turns(name, ways, deadline, f"virsh console {domain.name} shows what it does")


def _by_domain_agent(domain: Domain, deadline: float) -> Guest | None:
    agent = DomainAgent(domain)
    if not agent.answers(deadline=deadline):
        return None
    try:
        return AgentGuest(agent, packaged_probe())
    except DeadlineMissed:
        return None  # it has other things to do while its guest boots
