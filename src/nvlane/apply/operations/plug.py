"""Hot-plug: devices into a running machine and out again. What speaks QMP is the `Plugger`."""

from __future__ import annotations

from typing import Protocol

from nvlane.apply.operations.found import FoundPlugged
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.step import PlugDevices, UnplugDevices

#: Seconds for one plug or unplug; an unplug waits for the guest to let the device go.
PLUG_DEADLINE = 60.0


class Plugger(Protocol):
    """Speaks QMP with a machine on the socket `qmp`.

    `present`: which of these ids (devices, nodes, objects, chardevs) the machine has; None when no machine answers on
    that socket. `plug` and `unplug` do all of the step's devices, in order and in reverse; both leave out what is
    there, or not there, already. They raise HostError or WireError, and wait at most `deadline` seconds.
    """

    def present(self, qmp: str, ids: tuple[str, ...]) -> frozenset[str] | None: ...
    def plug(self, step: PlugDevices, deadline: float) -> None: ...
    def unplug(self, inverse: UnplugDevices, deadline: float) -> None: ...


def ids_of(step: PlugDevices | UnplugDevices) -> tuple[str, ...]:
    """The ids of all devices of a step; block nodes have a node name instead."""
    return tuple(str(getattr(device, "id", None) or getattr(device, "node_name", "")) for device in step.devices)


class PlugDevicesOperation:
    def __init__(self, plugger: Plugger) -> None:
        self._plugger = plugger

    def observe(self, host: Host, step: PlugDevices) -> FoundPlugged:  # noqa: ARG002
        present = self._plugger.present(step.qmp, ids_of(step))
        if present is None:
            raise HostError(f"{step.machine} does not answer on {step.qmp}", remedy="see nvlane status")
        return FoundPlugged(present=tuple(sorted(present)))

    def check(self, host: Host, step: PlugDevices, found: FoundPlugged) -> None:  # noqa: ARG002
        if found.present:
            raise HostError(f"{step.machine} has {', '.join(found.present)} already", remedy="detach that lane first")

    def perform(self, host: Host, step: PlugDevices, found: FoundPlugged, keep: Keep) -> None:  # noqa: ARG002
        self._plugger.plug(step, PLUG_DEADLINE)

    def inverse(self, step: PlugDevices, found: FoundPlugged, result: None) -> UnplugDevices:  # noqa: ARG002
        return UnplugDevices(machine=step.machine, qmp=step.qmp, devices=step.devices)


class UnplugDevicesReversal(Idempotent):
    def __init__(self, plugger: Plugger) -> None:
        self._plugger = plugger

    def observe(self, host: Host, inverse: UnplugDevices) -> FoundPlugged:  # noqa: ARG002
        return FoundPlugged(present=tuple(sorted(self._plugger.present(inverse.qmp, ids_of(inverse)) or ())))

    def perform(self, host: Host, inverse: UnplugDevices, found: FoundPlugged) -> Outcome:  # noqa: ARG002
        if not found.present:
            return already("the machine is gone, or no longer has them")
        try:
            self._plugger.unplug(inverse, PLUG_DEADLINE)
        except NvlaneError as error:
            return failed(
                f"{inverse.machine} did not let go of {', '.join(found.present)}: {error.message}",
                remedy="nvlane down ends the machine, which always works",
            )
        return PUT_BACK
