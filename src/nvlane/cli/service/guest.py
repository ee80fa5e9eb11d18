"""The way into a running guest, and the verification of its lanes through it.

A guest is reached through its QEMU guest agent where it has one, and through the probe on its own port where it has
that; the built-in probe guest has the latter only. A guest that boots answers late, so both are tried in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from nvlane.apply.initramfs import packaged_probe
from nvlane.cli.service.record import MachineRecord
from nvlane.model.claim import Claim, Evidence
from nvlane.model.device import DirectBoot
from nvlane.model.errors import WireError
from nvlane.verify.agent import AgentGuest
from nvlane.verify.guest import Guest
from nvlane.verify.look import Look, Proof
from nvlane.verify.probe import ProbeGuest
from nvlane.verify.run import verify
from nvlane.wire.lines import DeadlineMissed
from nvlane.wire.qmp import Qmp

#: Seconds that a turn of one way takes before the other has one.
_TURN: Final = 2.0


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
    until = time.monotonic() + deadline
    while True:
        for turn in (_by_agent, _by_probe):
            found = turn(runtime, min(_TURN, max(until - time.monotonic(), 0.1)))
            if found is not None:
                return found
        if time.monotonic() > until:
            raise DeadlineMissed(
                f"neither a guest agent nor nvlane-probe answered in {record.name} within {deadline:g} s",
                remedy="install qemu-guest-agent in the guest; `nvlane status` says where its console is. "
                f"Then run nvlane verify {record.name}",
            )


def _is_probe_guest(record: MachineRecord) -> bool:
    boot = record.machine.boot
    return isinstance(boot, DirectBoot) and "/nvlane/guest/" in boot.initrd


def _by_agent(runtime: Path, deadline: float) -> Guest | None:
    try:
        return AgentGuest(runtime / "agent.sock", packaged_probe(), deadline=deadline)
    except DeadlineMissed:
        return None  # not up yet, or none there: the caller has its own deadline


def _by_probe(runtime: Path, deadline: float) -> Guest | None:
    guest = ProbeGuest(runtime / "probe.sock")
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
    with reach(record, deadline=deadline) as guest, Qmp.connect(record.qmp) as monitor:
        reached()
        look = Look(guest=guest, monitor=monitor, write=write)
        evidence = verify(claims, look, progress=progress)
        return evidence, tuple(look.proofs)
