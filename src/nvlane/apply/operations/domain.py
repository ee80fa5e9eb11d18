"""libvirt domains: defined with a lane and without it, lanes plugged while they run, started and ended.

What speaks to libvirt is the `Domains`. Another client may change a domain at any moment: each operation looks first,
and each reversal puts back exactly what it finds to be its own doing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from nvlane.apply.operations.found import FoundDomain, MadeDomain, StartedDomain
from nvlane.apply.operations.operation import PUT_BACK, Fate, Idempotent, Keep, Outcome, already, failed
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.domain_step import (
    DefineDomain,
    PlugDomain,
    RedefineDomain,
    StartDomain,
    StopDomain,
    UnplugDomain,
)

#: The additions of the other lanes that a run gave a domain, by the lane's name.
OtherLanes = Callable[[str], Mapping[str, Mapping[str, object]]]


class Domains(Protocol):
    """Speaks to libvirt. Every call raises HostError or WireError with the remedy when libvirt cannot be reached.

    `look` gives a domain as it stands; `define` its new XML as libvirt then shows it; `without` the XML without the
    additions of one lane (pure), and what could not be found; `plug` and `unplug` leave out what is there, or not
    there, already.
    """

    def look(self, uri: str, uuid: str) -> FoundDomain: ...
    def has(self, step: PlugDomain | UnplugDomain) -> FoundDomain: ...
    def define(self, uri: str, uuid: str, xml: str) -> str: ...
    def without(
        self, xml: str, additions: Mapping[str, object], others: Mapping[str, Mapping[str, object]]
    ) -> tuple[str, tuple[str, ...]]: ...
    def plug(self, step: PlugDomain) -> None: ...
    def unplug(self, inverse: UnplugDomain) -> None: ...
    def start(self, uri: str, uuid: str) -> int: ...
    def stop(self, uri: str, uuid: str) -> None: ...


def _gone(name: str) -> HostError:
    return HostError(f"the domain {name} was undefined meanwhile", remedy="virsh list --all shows what there is")


class DefineDomainOperation:
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def observe(self, host: Host, step: DefineDomain) -> FoundDomain:  # noqa: ARG002
        return self._domains.look(step.uri, step.uuid)

    def check(self, host: Host, step: DefineDomain, found: FoundDomain) -> None:  # noqa: ARG002
        if not found.xml:
            raise _gone(step.name)
        if found.xml != step.before:
            raise HostError(
                f"somebody else changed the domain {step.name} since the diff was shown; it is not defined anew",
                remedy="do it again, and look at the new diff",
            )

    def perform(self, host: Host, step: DefineDomain, found: FoundDomain, keep: Keep) -> None:  # noqa: ARG002
        keep(MadeDomain(settled=self._domains.define(step.uri, step.uuid, step.after)))

    def inverse(self, step: DefineDomain, found: FoundDomain, result: MadeDomain | None) -> RedefineDomain:
        return RedefineDomain(
            uri=step.uri,
            uuid=step.uuid,
            name=step.name,
            lane=step.lane,
            before=found.xml,
            after=step.after,
            settled=result.settled if result else "",
            additions=step.additions,
        )


class RedefineDomainReversal(Idempotent):
    """`others` tells of the lanes that stay: what they need too stays with them."""

    def __init__(self, domains: Domains, others: OtherLanes = lambda _: {}) -> None:
        self._domains = domains
        self._others = others

    def observe(self, host: Host, inverse: RedefineDomain) -> FoundDomain:  # noqa: ARG002
        return self._domains.look(inverse.uri, inverse.uuid)

    def perform(self, host: Host, inverse: RedefineDomain, found: FoundDomain) -> Outcome:  # noqa: ARG002
        if not found.xml:
            return already("the domain is no longer defined")
        if found.xml == inverse.before:
            return already("it is defined so")
        if found.xml in (inverse.after, inverse.settled):
            shown = self._domains.define(inverse.uri, inverse.uuid, inverse.before)
            if shown == inverse.before:
                return PUT_BACK
            return Outcome(fate=Fate.PUT_BACK, why="libvirt shows the same definition in other words")
        # Another lane, or another client, has changed the domain since: only what is ours goes.
        xml, missing = self._domains.without(found.xml, inverse.additions, self._others(inverse.lane))
        if xml == found.xml:
            return already("the domain has nothing of it any more")
        self._domains.define(inverse.uri, inverse.uuid, xml)
        return Outcome(fate=Fate.PUT_BACK, why="; ".join(missing))


class PlugDomainOperation:
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def observe(self, host: Host, step: PlugDomain) -> FoundDomain:  # noqa: ARG002
        return self._domains.has(step)

    def check(self, host: Host, step: PlugDomain, found: FoundDomain) -> None:  # noqa: ARG002
        if not found.xml:
            raise _gone(step.name)
        if found.number < 0:
            raise HostError(f"the domain {step.name} does not run any more", remedy="leave --live out, or start it")
        if found.has:
            raise HostError(f"{step.name} has {', '.join(found.has)} already", remedy="give the lane another name")

    def perform(self, host: Host, step: PlugDomain, found: FoundDomain, keep: Keep) -> None:  # noqa: ARG002
        self._domains.plug(step)

    def inverse(self, step: PlugDomain, found: FoundDomain, result: None) -> UnplugDomain:  # noqa: ARG002
        return UnplugDomain(uri=step.uri, uuid=step.uuid, name=step.name, lane=step.lane, parts=step.parts)


class UnplugDomainReversal(Idempotent):
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def observe(self, host: Host, inverse: UnplugDomain) -> FoundDomain:  # noqa: ARG002
        return self._domains.has(inverse)

    def perform(self, host: Host, inverse: UnplugDomain, found: FoundDomain) -> Outcome:  # noqa: ARG002
        if not found.has:
            return already("the domain does not run, or no longer has it")
        try:
            self._domains.unplug(inverse)
        except NvlaneError as error:
            return failed(
                f"{inverse.name} did not let go of {', '.join(found.has)}: {error.message}",
                remedy=error.remedy or f"virsh shutdown {inverse.name}; then do it again",
            )
        return PUT_BACK


class StartDomainOperation:
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def observe(self, host: Host, step: StartDomain) -> FoundDomain:  # noqa: ARG002
        return self._domains.look(step.uri, step.uuid)

    def check(self, host: Host, step: StartDomain, found: FoundDomain) -> None:  # noqa: ARG002
        if not found.xml:
            raise _gone(step.name)
        if found.number >= 0:
            raise HostError(f"somebody else started the domain {step.name} meanwhile", remedy="do it again")

    def perform(self, host: Host, step: StartDomain, found: FoundDomain, keep: Keep) -> None:  # noqa: ARG002
        keep(StartedDomain(number=self._domains.start(step.uri, step.uuid)))

    def inverse(self, step: StartDomain, found: FoundDomain, result: StartedDomain | None) -> StopDomain:  # noqa: ARG002
        return StopDomain(uri=step.uri, uuid=step.uuid, name=step.name, number=result.number if result else -1)


class StopDomainReversal(Idempotent):
    def __init__(self, domains: Domains) -> None:
        self._domains = domains

    def observe(self, host: Host, inverse: StopDomain) -> FoundDomain:  # noqa: ARG002
        return self._domains.look(inverse.uri, inverse.uuid)

    def perform(self, host: Host, inverse: StopDomain, found: FoundDomain) -> Outcome:  # noqa: ARG002
        if found.number < 0:
            return already("it does not run")
        if inverse.number >= 0 and found.number != inverse.number:
            return already("somebody else started it anew since")
        self._domains.stop(inverse.uri, inverse.uuid)
        return PUT_BACK
