"""Hot-plug through QMP: the `Plugger` of `PlugDevices` and `UnplugDevices`."""

from __future__ import annotations

import time

from nvlane.model.device import BlockNode, Device, Frontend
from nvlane.model.errors import HostError
from nvlane.plan.step import PlugDevices, UnplugDevices
from nvlane.qemu import inspect
from nvlane.qemu.board import Board
from nvlane.qemu.hotplug import Command, hot_plug, hot_unplug, unplug_order
from nvlane.wire.lines import PeerClosed
from nvlane.wire.qmp import Qmp, QmpError

_ANSWER = 10.0  # seconds for a machine to say what it has


class QemuPlugger:
    """It holds no state."""

    def present(self, qmp: str, ids: tuple[str, ...]) -> frozenset[str] | None:
        try:
            with Qmp.connect(qmp, deadline=_ANSWER) as monitor:
                return inspect.present(monitor) & frozenset(ids)
        except PeerClosed:
            return None

    def plug(self, step: PlugDevices, deadline: float) -> None:
        """In order; what was plugged before a failure stays, and the journal's inverse takes it out."""
        with Qmp.connect(step.qmp, deadline=deadline) as monitor:
            there = inspect.present(monitor)
            missing = tuple(device for device in step.devices if _name(device) not in there)
            buses = _buses(monitor, step.machine, missing)
            for device in missing:
                command = hot_plug(device, buses.get(_name(device), ""))
                monitor.execute(command.execute, command.arguments, deadline=deadline)

    def unplug(self, inverse: UnplugDevices, deadline: float) -> None:
        until = time.monotonic() + deadline
        with Qmp.connect(inverse.qmp, deadline=deadline) as monitor:
            _nothing_would_stay(monitor, inverse)
            for device in unplug_order(inverse.devices):
                # Asked anew each time: a front end takes those on its bus along.
                if _name(device) in inspect.present(monitor):
                    _remove(monitor, hot_unplug(device), inverse.machine, until)


def _nothing_would_stay(monitor: Qmp, inverse: UnplugDevices) -> None:
    """From 10.0 on QEMU makes a subsystem for each NVMe controller, whose bus takes the controller's namespaces
    (hw/nvme/ns.c, nvme_ns_realize): they stay when the controller goes, with their drives open, and cannot be unplugged
    themselves."""
    there = inspect.device_ids(monitor)
    for device in inverse.devices:
        if not isinstance(device, Frontend) or device.driver != "nvme-ns" or device.id not in there:
            continue
        controller = str(device.properties["bus"])
        if not inspect.parent_bus(monitor, device.id).startswith(f"/machine/peripheral/{controller}/"):
            raise HostError(
                f"QEMU would keep {device.id} when {controller} goes: nvme-ns has no hot-unplug",
                remedy=f"take the lane out of the spec; nvlane down {inverse.machine}; nvlane up; only one that "
                "was attached to the running machine can be detached",
            )


def _name(device: Device) -> str:
    return device.node_name if isinstance(device, BlockNode) else device.id


def _buses(monitor: Qmp, machine: str, devices: tuple[Device, ...]) -> dict[str, str]:
    """A free bus for each front end that asks for a slot."""
    asking = [device.id for device in devices if isinstance(device, Frontend) and device.slot]
    board = Board.of(inspect.machine_type(monitor))
    if not board.ports:
        return dict.fromkeys(asking, board.root_bus)
    free = inspect.free_ports(monitor)
    if len(free) < len(asking):
        raise HostError(
            f"{machine} has {len(free)} free PCIe ports, and {len(asking)} are needed",
            remedy="detach a lane, or add this one to the spec and start the machine anew",
        )
    return dict(zip(asking, free, strict=False))


def _remove(monitor: Qmp, command: Command, machine: str, until: float) -> None:
    """Send a removal; for a front end, wait until the guest has let it go."""
    left = max(0.1, until - time.monotonic())
    try:
        monitor.execute(command.execute, command.arguments, deadline=left)
    except QmpError as error:
        # An earlier try asked for it already; its event is still to come (system/qdev-monitor.c,
        # qmp_device_del).
        if "in the process of unplug" not in error.words:
            raise
    if not command.gone:
        return
    event = monitor.wait_event(
        "DEVICE_DELETED",
        "DEVICE_UNPLUG_GUEST_ERROR",
        match=lambda data: data.get("device") == command.gone,
        deadline=max(0.1, until - time.monotonic()),
    )
    if event["event"] != "DEVICE_DELETED":
        raise HostError(
            f"the guest of {machine} refuses to let {command.gone} go",
            remedy="unmount and release it in the guest, then detach it again",
        )
