"""QEMU as a process: the `Launcher` of `StartMachine` and `ReceiveMachine`."""

from __future__ import annotations

from collections.abc import Mapping

from nvlane.apply.operations.launch import Launch
from nvlane.apply.process_end import explain_end, pin_threads
from nvlane.model.device import SocketChardev
from nvlane.model.errors import HostError, WireError
from nvlane.model.size import GIB
from nvlane.plan.migrate_step import ReceiveMachine
from nvlane.plan.step import StartMachine
from nvlane.qemu import inspect, render
from nvlane.qemu.board import CHANNELS
from nvlane.wire.qmp import Qmp

#: A slow processor zeroes about 1 GiB of hugepages a second.
_SECONDS_A_GIB = 1.0
#: States of a machine that was started well; the last two are those of a user who asked for `-S`.
_STARTED = frozenset({"running", "prelaunch", "paused"})
#: That of one that waits for a machine which is to be moved to it.
_WAITS = frozenset({"inmigrate"})


class QemuLauncher:
    """It holds no state."""

    def launch(self, step: StartMachine | ReceiveMachine) -> Launch:
        machine = step.machine
        sockets = {name: render.socket_path(machine, name) for name in CHANNELS}
        log = f"{machine.runtime}/qemu.log"
        files = [f"{machine.runtime}/console.log"]
        if machine.display == "vnc":
            files.append(f"{machine.runtime}/vnc.sock")
        return Launch(
            name=machine.name,
            directory=machine.runtime,
            log=log,
            sockets=sockets,
            files=tuple(files),
            memlock=step.memlock,
        )

    def argv(self, step: StartMachine | ReceiveMachine, descriptors: Mapping[str, int]) -> tuple[str, ...]:
        words = render.argv(step.binary, step.machine, step.devices, descriptors)
        return (*words, "-incoming", "defer") if isinstance(step, ReceiveMachine) else words

    def ready(self, step: StartMachine | ReceiveMachine, pid: int, deadline: float) -> None:
        """QMP answers only when every device has been made and the machine was started (system/vl.c)."""
        launch = self.launch(step)
        try:
            with Qmp.connect(launch.sockets["qmp"], deadline=deadline + _patience(step), pid=pid) as monitor:
                state = inspect.status(monitor)
                dead = _dead_links(monitor, step)
        except WireError as error:
            raise explain_end(self.argv(step, {}), pid, launch.log, error) from error
        if state not in (_WAITS if isinstance(step, ReceiveMachine) else _STARTED):
            raise HostError(f"{step.machine.name} started and is '{state}'", remedy=f"read {launch.log}")
        if dead:
            raise HostError(
                f"{step.machine.name} runs, but its vhost-user link is dead: {', '.join(dead)}",
                remedy=f"read {launch.log} and the log of the target",
            )
        pin_threads(pid, step.machine.pins)

    def quit(self, directory: str, name: str, deadline: float) -> None:  # noqa: ARG002 - one machine a directory
        with Qmp.connect(f"{directory}/qmp.sock", deadline=deadline) as monitor:
            monitor.execute("quit", deadline=deadline)


def _patience(step: StartMachine | ReceiveMachine) -> float:
    """Seconds more for memory that is made before QEMU answers: hugepages are zeroed, VFIO pins every
    page."""
    machine = step.machine
    ahead = machine.hugepage > 0 or machine.needs.pinned
    return machine.memory / GIB * _SECONDS_A_GIB if ahead else 0.0


def _dead_links(monitor: Qmp, step: StartMachine | ReceiveMachine) -> tuple[str, ...]:
    """The vhost-user sockets without a peer. QEMU runs on without them and says so nowhere else."""
    ours = {device.id: device.path for device in step.devices if isinstance(device, SocketChardev)}
    return tuple(
        f"{chardev.id} ({ours[chardev.id]})"
        for chardev in inspect.chardevs(monitor)
        if chardev.id in ours and not chardev.connected
    )
