"""Snapshots, block jobs, limits and sizes of disks of a machine that runs. What speaks QMP is the `BlockLayer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from nvlane.apply.operations.found import FoundBlock
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.block_step import (
    CancelBlockJob,
    DropSnapshot,
    ResizeDisk,
    RestoreThrottle,
    StartBlockJob,
    TakeSnapshot,
    ThrottleDisk,
)


class BlockLayer(Protocol):
    """Speaks QMP with a machine. `look` tells what there is; FoundBlock.answers is False when no machine answers.

    Every other call raises HostError or WireError (QMP's own words) when it is refused. `commit` writes an overlay back
    into what is below it and lets the guest go on there."""

    def look(self, qmp: str, device: str = "") -> FoundBlock: ...
    def snapshot(self, step: TakeSnapshot) -> None: ...
    def commit(self, inverse: DropSnapshot) -> None: ...
    def start(self, step: StartBlockJob) -> None: ...
    def cancel(self, inverse: CancelBlockJob) -> None: ...
    def throttle(self, qmp: str, device: str, limits: Mapping[str, int]) -> None: ...
    def resize(self, qmp: str, node: str, size: int) -> None: ...


class _OnBlocks:
    def __init__(self, layer: BlockLayer) -> None:
        self._layer = layer

    def _there(self, machine: str, qmp: str, device: str = "") -> FoundBlock:
        found = self._layer.look(qmp, device)
        if not found.answers:
            raise HostError(f"{machine} does not answer on {qmp}", remedy="see nvlane status")
        return found


def _must_have(machine: str, found: FoundBlock, *nodes: str) -> None:
    missing = [node for node in nodes if node not in found.nodes]
    if missing:
        raise HostError(f"{machine} has no block node {', '.join(missing)}", remedy="see nvlane status; plan again")


class TakeSnapshotOperation(_OnBlocks):
    def observe(self, host: Host, step: TakeSnapshot) -> FoundBlock:  # noqa: ARG002
        return self._there(step.machine, step.qmp)

    def check(self, host: Host, step: TakeSnapshot, found: FoundBlock) -> None:  # noqa: ARG002
        _must_have(step.machine, found, step.node, step.overlay)

    def perform(self, host: Host, step: TakeSnapshot, found: FoundBlock, keep: Keep) -> None:  # noqa: ARG002
        self._layer.snapshot(step)

    def inverse(self, step: TakeSnapshot, found: FoundBlock, result: None) -> DropSnapshot:  # noqa: ARG002
        return DropSnapshot(machine=step.machine, qmp=step.qmp, node=step.node, overlay=step.overlay, agent=step.agent)


class StartBlockJobOperation(_OnBlocks):
    def observe(self, host: Host, step: StartBlockJob) -> FoundBlock:  # noqa: ARG002
        return self._there(step.machine, step.qmp)

    def check(self, host: Host, step: StartBlockJob, found: FoundBlock) -> None:  # noqa: ARG002
        _must_have(step.machine, found, step.node, step.target)
        if step.id in found.jobs:
            raise HostError(f"{step.machine} has a job {step.id} already", remedy=f"nvlane jobs {step.machine}")

    def perform(self, host: Host, step: StartBlockJob, found: FoundBlock, keep: Keep) -> None:  # noqa: ARG002
        self._layer.start(step)

    def inverse(self, step: StartBlockJob, found: FoundBlock, result: None) -> CancelBlockJob:  # noqa: ARG002
        new = step.bitmap if step.new_bitmap else ""
        return CancelBlockJob(machine=step.machine, qmp=step.qmp, id=step.id, node=step.node, new_bitmap=new)


class ThrottleDiskOperation(_OnBlocks):
    def observe(self, host: Host, step: ThrottleDisk) -> FoundBlock:  # noqa: ARG002
        return self._there(step.machine, step.qmp, step.device)

    def check(self, host: Host, step: ThrottleDisk, found: FoundBlock) -> None: ...

    def perform(self, host: Host, step: ThrottleDisk, found: FoundBlock, keep: Keep) -> None:  # noqa: ARG002
        self._layer.throttle(step.qmp, step.device, step.limits)

    def inverse(self, step: ThrottleDisk, found: FoundBlock, result: None) -> RestoreThrottle:  # noqa: ARG002
        return RestoreThrottle(machine=step.machine, qmp=step.qmp, device=step.device, limits=found.limits)


class ResizeDiskOperation(_OnBlocks):
    def observe(self, host: Host, step: ResizeDisk) -> FoundBlock:  # noqa: ARG002
        return self._there(step.machine, step.qmp)

    def check(self, host: Host, step: ResizeDisk, found: FoundBlock) -> None:  # noqa: ARG002
        _must_have(step.machine, found, step.node)

    def perform(self, host: Host, step: ResizeDisk, found: FoundBlock, keep: Keep) -> None:  # noqa: ARG002
        self._layer.resize(step.qmp, step.node, step.size)

    def inverse(self, step: ResizeDisk, found: FoundBlock, result: None) -> None:  # noqa: ARG002
        return None


class DropSnapshotReversal(_OnBlocks, Idempotent):
    def observe(self, host: Host, inverse: DropSnapshot) -> FoundBlock:  # noqa: ARG002
        return self._layer.look(inverse.qmp)

    def perform(self, host: Host, inverse: DropSnapshot, found: FoundBlock) -> Outcome:  # noqa: ARG002
        if inverse.overlay not in found.nodes:
            return already("the machine is gone, or no longer has it")
        return _tried(lambda: self._layer.commit(inverse), inverse.machine)


class CancelBlockJobReversal(_OnBlocks, Idempotent):
    def observe(self, host: Host, inverse: CancelBlockJob) -> FoundBlock:  # noqa: ARG002
        return self._layer.look(inverse.qmp)

    def perform(self, host: Host, inverse: CancelBlockJob, found: FoundBlock) -> Outcome:  # noqa: ARG002
        if not found.answers or (inverse.id not in found.jobs and not inverse.new_bitmap):
            return already("the machine is gone, or has no such job")
        return _tried(lambda: self._layer.cancel(inverse), inverse.machine)


class RestoreThrottleReversal(_OnBlocks, Idempotent):
    def observe(self, host: Host, inverse: RestoreThrottle) -> FoundBlock:  # noqa: ARG002
        return self._layer.look(inverse.qmp)

    def perform(self, host: Host, inverse: RestoreThrottle, found: FoundBlock) -> Outcome:  # noqa: ARG002
        if not found.answers:
            return already("the machine is gone")
        return _tried(lambda: self._layer.throttle(inverse.qmp, inverse.device, inverse.limits), inverse.machine)


def _tried(deed: Callable[[], None], machine: str) -> Outcome:
    try:
        deed()
    except NvlaneError as error:
        return failed(error.message, remedy=f"nvlane down {machine} ends the machine, which always works")
    return PUT_BACK
