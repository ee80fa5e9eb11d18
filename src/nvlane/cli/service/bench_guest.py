"""fio in a guest: the guest's own, or a kit of ours; and the block device of the lane that is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nvlane.apply import fio_kit
from nvlane.cli.service.record import LaneRecord, MachineRecord
from nvlane.lab.debian_fio import debian_kit
from nvlane.model.claim import BlockClaim
from nvlane.model.errors import Bug, CommandFailed, HostError
from nvlane.verify.agent import AgentGuest
from nvlane.verify.guest import Guest, GuestFault
from nvlane.verify.look import Look
from nvlane.wire.qmp import Qmp

#: Seconds, beside its own run time, that fio may take: it is large, and in an emulated guest it starts slowly.
FIO_PATIENCE = 180.0


def kit(progress: Callable[[str], None]) -> Path:
    """fio for a guest that has none: this host's, or Debian's. Raises HostError."""
    return fio_kit.host_kit() or debian_kit(progress)


class GuestFio:
    """fio in one guest. `version` is its own words."""

    def __init__(self, guest: Guest, progress: Callable[[str], None]) -> None:
        """Find it, or bring it in. Raises HostError where neither can be done."""
        self._guest = guest
        self._words: tuple[str, ...] = ("fio",)
        version = self._try()
        if not version:
            self._words = fio_kit.words(fio_kit.PLACE)
            version = self._try()
        if not version and isinstance(guest, AgentGuest):
            progress("bringing fio into the guest")
            self._words = fio_kit.words(guest.put_tree(fio_kit.files(kit(progress))))
            version = self._try()
        if not version:
            raise HostError("the guest has no fio", remedy="install fio in the guest, or give it qemu-guest-agent")
        self.version = version

    def run(self, words: tuple[str, ...], *, seconds: float) -> str:
        """One run that takes `seconds`; fio's standard output. Raises CommandFailed with fio's last words."""
        argv = [*self._words, *words]
        done = self._guest.run(argv, timeout=seconds + FIO_PATIENCE)
        if done.status != 0:
            how = f"signal {done.signal}" if done.status is None else f"status {done.status}"
            raise CommandFailed(f"in the guest: {' '.join(argv)}", how, done.stderr or done.stdout)
        return done.stdout

    def _try(self) -> str:
        try:
            done = self._guest.run([*self._words, "--version"], timeout=FIO_PATIENCE)
        except GuestFault as fault:
            if fault.code == "no-tool":
                return ""
            raise
        return done.stdout.strip() if done.status == 0 else ""


def device_of(guest: Guest, record: MachineRecord, lane: LaneRecord, namespace: int) -> tuple[str, int]:
    """(block node in the guest, size in bytes) of a lane: of the only disk that it is, or of this namespace."""
    claims = [claim for claim in lane.claims if isinstance(claim, BlockClaim)]
    fitting = [claim for claim in claims if claim.locator.nsid == namespace] if len(claims) > 1 else claims
    if not fitting:
        raise Bug(f"{lane.name} shows the guest no block device")
    claim = fitting[0]
    with Qmp.connect(record.qmp) as monitor:
        path = Look(guest=guest, monitor=monitor).path(claim.locator)
    return path, claim.size
