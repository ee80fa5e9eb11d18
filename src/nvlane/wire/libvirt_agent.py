"""The QEMU guest agent of a libvirt domain: libvirt holds its channel, and passes requests on."""

from __future__ import annotations

from typing import Any, Final

from nvlane.wire.guest_agent import GuestAgent
from nvlane.wire.libvirt import Domain, LibvirtError
from nvlane.wire.lines import DeadlineMissed

#: What libvirt says of an agent that does not answer, or not yet (VIR_ERR_ names).
_SILENT: Final = frozenset({"AGENT_UNRESPONSIVE", "AGENT_UNSYNCED", "OPERATION_TIMEOUT"})


class DomainAgent(GuestAgent):
    """The agent in a domain that runs. libvirt gets in step with it by itself."""

    # A request that does not fit into its socket at once (208 KiB) is never sent whole by libvirt 9.0 and 11.3, and
    # the agent hears nothing more from then on.
    chunk = 48 << 10

    def __init__(self, domain: Domain) -> None:
        self._domain = domain

    def answers(self, *, deadline: float) -> bool:
        """Whether it is there."""
        try:
            self.command("guest-ping", deadline=deadline)
        except DeadlineMissed:
            return False
        return True

    def close(self) -> None:
        """The connection is the domain's."""

    def exchange(self, request: dict[str, Any], *, deadline: float) -> dict[str, Any]:
        try:
            reply = self._domain.agent(request, deadline=deadline)
        except LibvirtError as error:
            if error.code in _SILENT:
                raise DeadlineMissed(error.message, remedy="is qemu-guest-agent up in the guest?") from error
            if error.code == "INTERNAL_ERROR":  # libvirt's code for what the agent itself refuses
                return {"error": {"desc": error.words}}
            raise
        return reply if isinstance(reply, dict) else {}
