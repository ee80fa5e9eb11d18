"""Steps on libvirt domains, and their inverses: the VM is libvirt's, and nvlane changes its definition, plugs, starts.

A domain is named by its UUID: a name may be given to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from nvlane.model.device import Device


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPath:
    """Give a socket or an image to the user that libvirt runs QEMU as, where libvirt itself does not."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    path: str
    uid: int
    gid: int

    def describe(self) -> str:
        return f"give {self.path} to QEMU's user {self.uid}:{self.gid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DefineDomain:
    """Define a libvirt domain with one more lane. `before` is the XML that the diff was made from, `additions` what
    `libvirt.edit` remembers of the lane, as plain values."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    uri: str
    uuid: str
    name: str
    lane: str
    before: str
    after: str
    additions: Mapping[str, object]

    def describe(self) -> str:
        return f"define the domain {self.name} with {self.lane}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFragment:
    """One device as libvirt's own XML, and the alias that it has in it."""

    TAGGED: ClassVar[bool] = True
    xml: str
    alias: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainThread:
    """An iothread, by libvirt's number of it."""

    TAGGED: ClassVar[bool] = True
    number: int


#: What a running domain is given, or asked to let go.
DomainPart = DomainFragment | DomainThread | Device


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugDomain:
    """Plug a lane into a libvirt domain that runs: each part through libvirt where that knows it, else by QMP."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    uri: str
    uuid: str
    name: str
    lane: str
    parts: tuple[DomainPart, ...]

    def describe(self) -> str:
        return f"plug {self.lane} into the running domain {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDomain:
    """Start a libvirt domain."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    uri: str
    uuid: str
    name: str

    def describe(self) -> str:
        return f"start the domain {self.name}"


# The inverses. Only the journal makes them.


@dataclass(frozen=True, slots=True, kw_only=True)
class DisownPath:
    """Give a path back to the owner that it had; `uid` and `gid` are whom it was given to."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    path: str
    uid: int
    gid: int
    old_uid: int
    old_gid: int

    def describe(self) -> str:
        return f"give {self.path} back to {self.old_uid}:{self.old_gid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RedefineDomain:
    """Take a lane out of a domain's definition. While nobody else has changed it (it is `after`, or `settled`: how
    libvirt showed it), the XML that it had is defined again to the letter; else only the additions are taken away."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    uri: str
    uuid: str
    name: str
    lane: str
    before: str
    after: str
    settled: str
    additions: Mapping[str, object]

    def describe(self) -> str:
        return f"define the domain {self.name} without {self.lane}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplugDomain:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    uri: str
    uuid: str
    name: str
    lane: str
    parts: tuple[DomainPart, ...]

    def describe(self) -> str:
        return f"unplug {self.lane} from the running domain {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopDomain:
    """End a domain, if it is still the run of it that was started: `number` is libvirt's for that (-1: not known)."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    uri: str
    uuid: str
    name: str
    number: int

    def describe(self) -> str:
        return f"end the domain {self.name}"


DomainStep = OwnPath | DefineDomain | PlugDomain | StartDomain
DomainInverse = DisownPath | RedefineDomain | UnplugDomain | StopDomain
