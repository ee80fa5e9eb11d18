"""Migration through QMP, from one QEMU of this host to another.

The guest runs in one of the two, never in both: the second begins only when it has everything, and the first goes on
only when the second has not begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from nvlane.apply import block_qemu
from nvlane.model.errors import HostError
from nvlane.plan.migrate_step import MigrateMachine, ServeDisks, StayHere
from nvlane.qemu import inspect
from nvlane.qemu.migration import MigrationNow, migration
from nvlane.wire.lines import DeadlineMissed, PeerClosed
from nvlane.wire.qmp import Qmp, QmpError

#: Seconds for one command, between two looks, and without any progress until a migration is given up.
_ANSWER: Final = 60.0
_LOOK: Final = 0.1
_PATIENCE: Final = 300.0
#: States of QEMU in which it waits for a machine, and those of one that has given its machine away.
WAITING: Final = "inmigrate"
#: The status of a migration whose guest stands still, with its disks still open (qapi/migration.json).
_STANDS: Final = "pre-switchover"
_GIVEN: Final = ("postmigrate", "finish-migrate")


class QemuMigrator:
    """`watch` is called with a migration whenever it was looked at; `whole` once, when the copies of all disks
    are whole and the guest stands still. It holds no other state."""

    def __init__(
        self, watch: Callable[[MigrationNow], None] = lambda _: None, whole: Callable[[], None] = lambda: None
    ) -> None:
        self._watch = watch
        self._whole = whole

    def serve(self, step: ServeDisks) -> None:
        address = {"type": "unix", "data": {"path": step.socket}}
        with Qmp.connect(step.target, deadline=_ANSWER) as monitor:
            monitor.execute("nbd-server-start", {"addr": address}, deadline=_ANSWER)
            for node in step.nodes:
                export = {"type": "nbd", "id": f"fill-{node}", "node-name": node, "writable": True}
                # An image of a QEMU that waits for its machine is inactive until it is exported
                # (block/export/export.c, blk_exp_add).
                monitor.execute("block-export-add", export, deadline=_ANSWER)

    def unserve(self, qmp: str) -> None:
        with Qmp.connect(qmp, deadline=_ANSWER) as monitor:
            try:
                monitor.execute("nbd-server-stop", deadline=_ANSWER)
            except QmpError as error:
                if "not running" not in error.words:
                    raise

    def move(self, step: MigrateMachine) -> None:
        """Raises HostError with QEMU's own words; the guest then runs where it was, or `stay` lets it."""
        with Qmp.connect(step.target, deadline=_ANSWER) as monitor:
            monitor.execute("migrate-incoming", {"uri": f"unix:{step.incoming or step.socket}"}, deadline=_ANSWER)
        with Qmp.connect(step.source, deadline=_ANSWER) as monitor:
            # A guest that writes faster than its memory is copied is slowed down instead of copied for ever. Copies of
            # disks are made whole between the guest's last write and its first one there.
            wanted = {"auto-converge": True, "pause-before-switchover": bool(step.jobs)}
            capabilities = [{"capability": name, "state": state} for name, state in wanted.items()]
            monitor.execute("migrate-set-capabilities", {"capabilities": capabilities})
            monitor.execute("migrate-set-parameters", {"max-bandwidth": 0})
            monitor.execute("migrate", {"uri": f"unix:{step.socket}"}, deadline=_ANSWER)
        self._wait(step)
        if not has_arrived(step.target, wait=_PATIENCE):
            raise HostError(f"{step.machine} was sent, and the second QEMU does not run it", remedy="read its qemu.log")

    def _wait(self, step: MigrateMachine) -> None:
        last, until, told = -1, time.monotonic() + _PATIENCE, False
        while time.monotonic() < until:
            with Qmp.connect(step.source, deadline=_ANSWER) as monitor:
                now = migration(monitor)
            self._watch(now)
            if now.status == "completed":
                return
            if now.status == _STANDS and not told:
                self._let_go(step)
                told, until = True, time.monotonic() + _PATIENCE
            if now.status in ("failed", "cancelled"):
                raise HostError(f"QEMU could not move {step.machine}: {now.error or now.status}")
            if now.remaining != last:
                last, until = now.remaining, time.monotonic() + _PATIENCE
            time.sleep(_LOOK)
        raise DeadlineMissed(f"moving {step.machine} made no progress for {_PATIENCE:g} s")

    def _let_go(self, step: MigrateMachine) -> None:
        """The guest stands still: its last writes reach the copies, which are let go of, and it goes on there."""
        for job in step.jobs:
            block_qemu.end_copy(step.source, job)
        with Qmp.connect(step.source, deadline=_ANSWER) as monitor:
            for node in step.nodes:
                monitor.execute("blockdev-del", {"node-name": node}, deadline=_ANSWER)
        self.unserve(step.target)
        self._whole()
        with Qmp.connect(step.source, deadline=_ANSWER) as monitor:
            monitor.execute("migrate-continue", {"state": _STANDS}, deadline=_ANSWER)

    def stay(self, inverse: StayHere) -> None:
        """Cancel what is under way; a source that has stopped goes on, for the second QEMU has ended by now or never
        had all. Raises HostError when the guest runs there already."""
        if has_arrived(inverse.target, wait=0):
            raise HostError(f"{inverse.machine} runs in the second QEMU already")
        with Qmp.connect(inverse.source, deadline=_ANSWER) as monitor:
            now = migration(monitor)
            if _sent(monitor) and self.there(inverse.target):
                raise HostError(f"{inverse.machine} is just beginning to run in the second QEMU")
            if now.status not in ("", "completed", "failed", "cancelled"):
                monitor.execute("migrate_cancel")
        until = time.monotonic() + _ANSWER
        while time.monotonic() < until:
            with Qmp.connect(inverse.source, deadline=_ANSWER) as monitor:
                state = inspect.status(monitor)
                if migration(monitor).status != "cancelling":
                    if state in _GIVEN:
                        monitor.execute("cont", deadline=_ANSWER)
                    return
            time.sleep(_LOOK)
        raise DeadlineMissed(f"{inverse.machine}: the migration is not cancelled")

    def there(self, qmp: str) -> bool:
        """Whether a QEMU answers."""
        try:
            with Qmp.connect(qmp, deadline=_ANSWER):
                return True
        except PeerClosed:
            return False


def blocked(qmp: str) -> tuple[str, ...]:
    """Why QEMU says that this machine cannot be moved; () when it can."""
    with Qmp.connect(qmp, deadline=_ANSWER) as monitor:
        return migration(monitor).blocked


def was_sent(qmp: str) -> bool:
    """Whether a QEMU has given all of its machine away; one that is gone tells nothing."""
    try:
        with Qmp.connect(qmp, deadline=_ANSWER) as monitor:
            return _sent(monitor)
    except PeerClosed:
        return False


def _sent(monitor: Qmp) -> bool:
    """The way to a machine is told by the same words as the way from it: one that runs came that way."""
    return migration(monitor).status == "completed" and inspect.status(monitor) in _GIVEN


def has_arrived(qmp: str, *, wait: float) -> bool:
    """Whether a second QEMU has taken the machine over, within so many seconds. One that is gone has not."""
    until = time.monotonic() + wait
    while True:
        try:
            with Qmp.connect(qmp, deadline=_ANSWER) as monitor:
                if inspect.status(monitor) != WAITING:
                    return True
        except PeerClosed:
            return False
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOK)
