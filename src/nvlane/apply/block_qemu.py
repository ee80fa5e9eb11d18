"""QEMU's block layer through QMP: the `BlockLayer` of snapshots, jobs, limits and sizes.

Jobs are started so that they stay listed when they have ended (`auto-dismiss` off): whoever asks later, from another
process, learns how it went. A monitor serves one client at a time, so nobody holds it while a job runs.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nvlane.apply.operations.found import FoundBlock
from nvlane.model.errors import HostError, WireError
from nvlane.plan.block_step import CancelBlockJob, DropSnapshot, JobKind, StartBlockJob, TakeSnapshot
from nvlane.qemu import blocks
from nvlane.qemu.blocks import JobNow
from nvlane.wire.guest_agent import SocketAgent
from nvlane.wire.lines import DeadlineMissed, PeerClosed
from nvlane.wire.qmp import Qmp, QmpError

#: Seconds for one command: a snapshot drains the requests that are in flight.
ANSWER: Final = 60.0
#: Seconds between two looks at a job, and those without any progress after which it is given up.
_LOOK: Final = 0.25
_PATIENCE: Final = 600.0
#: Seconds for the guest's agent to answer at all, and for freezing, which writes out what the guest has in its caches.
_KNOCK: Final = 2.0
_FREEZE: Final = 120.0


class QemuBlocks:
    """It holds no state."""

    def look(self, qmp: str, device: str = "") -> FoundBlock:
        try:
            with Qmp.connect(qmp, deadline=ANSWER) as monitor:
                disk = blocks.disk(monitor, device) if device else None
                return FoundBlock(
                    answers=True,
                    nodes=tuple(sorted(blocks.nodes(monitor))),
                    jobs=tuple(job.id for job in blocks.jobs(monitor)),
                    limits=disk.limits if disk else {},
                )
        except PeerClosed:
            return FoundBlock(answers=False)

    def snapshot(self, step: TakeSnapshot) -> None:
        with Qmp.connect(step.qmp, deadline=ANSWER) as monitor, frozen(step.agent):
            monitor.execute("blockdev-snapshot", {"node": step.node, "overlay": step.overlay}, deadline=ANSWER)

    def commit(self, inverse: DropSnapshot) -> None:
        thaw(inverse.agent)
        job = f"{inverse.overlay}-back"
        with Qmp.connect(inverse.qmp, deadline=ANSWER) as monitor:
            if not _is_below(monitor, inverse.node, inverse.overlay):
                return  # it was plugged, and the snapshot was not taken
            arguments = {"job-id": job, "device": inverse.overlay, "base-node": inverse.node, "auto-dismiss": False}
            monitor.execute("block-commit", arguments)
        wait_for(inverse.qmp, job, "ready", "concluded")
        complete(inverse.qmp, job)

    def start(self, step: StartBlockJob) -> None:
        with Qmp.connect(step.qmp, deadline=ANSWER) as monitor, frozen(step.agent):
            if step.kind is JobKind.MIRROR:
                monitor.execute("blockdev-mirror", _mirror(step), deadline=ANSWER)
            else:
                monitor.execute("transaction", {"actions": _backup(step)}, deadline=ANSWER)

    def cancel(self, inverse: CancelBlockJob) -> None:
        end_job(inverse.qmp, inverse.id)
        if inverse.new_bitmap:
            with Qmp.connect(inverse.qmp, deadline=ANSWER) as monitor:
                try:
                    monitor.execute("block-dirty-bitmap-remove", {"node": inverse.node, "name": inverse.new_bitmap})
                except QmpError as error:
                    if "not found" not in error.words:
                        raise

    def throttle(self, qmp: str, device: str, limits: Mapping[str, int]) -> None:
        with Qmp.connect(qmp, deadline=ANSWER) as monitor:
            monitor.execute("block_set_io_throttle", blocks.throttling(device, limits))

    def resize(self, qmp: str, node: str, size: int) -> None:
        with Qmp.connect(qmp, deadline=ANSWER) as monitor:
            monitor.execute("block_resize", {"node-name": node, "size": size}, deadline=ANSWER)


def _mirror(step: StartBlockJob) -> dict[str, Any]:
    return {
        "job-id": step.id,
        "device": step.node,
        "target": step.target,
        "sync": step.sync,
        "speed": step.speed,
        "auto-dismiss": False,
    }


def _backup(step: StartBlockJob) -> list[dict[str, Any]]:
    """One transaction: the bitmap begins at the moment that the backup shows."""
    data: dict[str, Any] = {
        "job-id": step.id,
        "device": step.node,
        "target": step.target,
        "sync": step.sync,
        "speed": step.speed,
        "auto-dismiss": False,
    }
    if step.sync == "bitmap":
        # What was copied is forgotten only when all of it was.
        data |= {"bitmap": step.bitmap, "bitmap-mode": "on-success"}
    actions = [{"type": "blockdev-backup", "data": data}]
    if step.new_bitmap:
        bitmap = {"node": step.node, "name": step.bitmap, "persistent": step.persistent}
        actions.insert(0, {"type": "block-dirty-bitmap-add", "data": bitmap})
    return actions


def _is_below(monitor: Qmp, node: str, overlay: str) -> bool:
    """Whether an overlay has a node below it: the one that is plugged for a snapshot has none yet."""
    entries = {entry["node-name"]: entry for entry in monitor.execute("query-named-block-nodes", {"flat": True})}
    return node in entries and bool(entries.get(overlay, {}).get("backing_file_depth"))


@contextlib.contextmanager
def frozen(agent: str) -> Iterator[None]:
    """The guest's file systems written out and frozen; ('': nobody is asked). They are thawed whatever happens."""
    if not agent:
        yield
        return
    connection = SocketAgent(Path(agent), deadline=_KNOCK)
    try:
        connection.command("guest-fsfreeze-freeze", deadline=_FREEZE)
        yield
    finally:
        try:
            connection.command("guest-fsfreeze-thaw", deadline=_FREEZE)
        finally:
            connection.close()


def thaw(agent: str) -> None:
    """Thaw a guest that may have been left frozen; one that is not says so, and no harm is done."""
    if agent:
        connection = SocketAgent(Path(agent), deadline=_KNOCK)
        try:
            connection.command("guest-fsfreeze-thaw", deadline=_FREEZE)
        finally:
            connection.close()


def can_freeze(agent: str) -> bool:
    """Whether a guest agent answers there, and freezes."""
    try:
        connection = SocketAgent(Path(agent), deadline=_KNOCK)
    except WireError:
        return False  # no agent in this guest: QEMU's own channel is there, and nobody behind it
    try:
        connection.require(("guest-fsfreeze-freeze", "guest-fsfreeze-thaw"), deadline=_KNOCK)
    except WireError:
        return False  # it is there and may not: the snapshot is then as after a power failure
    finally:
        connection.close()
    return True


def job(qmp: str, name: str) -> JobNow | None:
    """A job as it stands; None when there is none of this name."""
    with Qmp.connect(qmp, deadline=ANSWER) as monitor:
        return next((found for found in blocks.jobs(monitor) if found.id == name), None)


def wait_for(qmp: str, name: str, *states: str, progress: Callable[[JobNow], None] = lambda _: None) -> JobNow:
    """Wait until a job is in one of these states. Raises HostError when it failed, is gone, or makes no progress."""
    last, until = -1, time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        now = job(qmp, name)
        if now is None:
            raise HostError(f"the job {name} is gone: somebody else has cancelled it")
        progress(now)
        if now.error:
            raise HostError(f"the job {name} failed: {now.error}", remedy="is there room where it writes to?")
        if now.status in states:
            return now
        if now.status in ("concluded", "aborting"):
            raise HostError(f"the job {name} ended before it was {' or '.join(states)}")
        if now.done != last:
            last, until = now.done, time.monotonic() + _PATIENCE
        time.sleep(_LOOK)
    raise DeadlineMissed(f"the job {name} made no progress for {_PATIENCE:g} s")


def complete(qmp: str, name: str) -> None:
    """Let a job that is ready come to its end, and forget it."""
    with Qmp.connect(qmp, deadline=ANSWER) as monitor:
        monitor.execute("job-complete", {"id": name})
    wait_for(qmp, name, "concluded")
    dismiss(qmp, name)


def dismiss(qmp: str, name: str) -> None:
    with Qmp.connect(qmp, deadline=ANSWER) as monitor:
        monitor.execute("job-dismiss", {"id": name})


def end_job(qmp: str, name: str, *, soft: bool = False) -> None:
    """Cancel a job, wait for its end, and forget it; one that is gone is well. `soft`: a mirror that is ready ends as
    a whole copy of this moment (qapi/block-core.json, block-job-cancel), else it is dropped where it stands."""
    now = job(qmp, name)
    if now is None:
        return
    if now.status != "concluded":
        with Qmp.connect(qmp, deadline=ANSWER) as monitor:
            if soft:
                monitor.execute("block-job-cancel", {"device": name, "force": False})
            else:
                monitor.execute("job-cancel", {"id": name})
    until = time.monotonic() + _PATIENCE
    while (now := job(qmp, name)) is not None and now.status != "concluded":
        if time.monotonic() > until:
            raise DeadlineMissed(f"the job {name} does not end")
        time.sleep(_LOOK)
    if now is not None:
        dismiss(qmp, name)


def end_copy(qmp: str, name: str) -> None:
    """End a mirror that was ready as a whole copy. Raises HostError when it is not whole after all."""
    now = job(qmp, name)
    if now is None or now.error:
        raise HostError(f"the copy {name} is not whole: {now.error if now else 'somebody has cancelled it'}")
    with Qmp.connect(qmp, deadline=ANSWER) as monitor:
        monitor.execute("block-job-cancel", {"device": name, "force": False})
    wait_for(qmp, name, "concluded")
    dismiss(qmp, name)
