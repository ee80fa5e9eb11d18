"""What nvlane wrote into a domain's XML for one lane: enough to take exactly that away again.

Records are journaled, so they are plain values that `model.codec` encodes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """What was done at a place of the XML."""

    ELEMENT = "element"  # a run of sibling elements was inserted
    CONTAINER = "container"  # an element was inserted to hold others; it goes when nothing is left in it
    OPENED = "opened"  # an empty element was opened up to hold others
    ATTRIBUTE = "attribute"  # an attribute was set
    AMOUNT = "amount"  # a number was raised: memory, iothreads


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """One change.

    `path` leads from the root to the element that holds it, as 'cpu/numa/cell[id=0]'. `name` is the tag or the
    attribute. `new` is the XML of what was inserted, without the white space around it, or the new value; `old` what
    was there, None for nothing. `text` are the characters that were inserted, white space included. `amount` is what
    was added to a number (KiB for memory). `port` is the index of the PCI controller that the element is, -1 for none.
    """

    kind: Kind
    path: str
    name: str
    new: str = ""
    old: str | None = None
    text: str = ""
    amount: int = 0
    port: int = -1

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Lanes that need one and the same thing have additions of the same key, and it goes with the last of them."""
        return self.kind, self.path, self.name, self.new if self.kind is Kind.ELEMENT else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One lane's additions. `before` is the XML that it was given to, `after` what came of it, `settled` how libvirt
    shows that (`edit.settle`); while the XML is one of these two, taking the lane away gives `before` back."""

    lane: str
    before: str
    after: str
    additions: tuple[Addition, ...]
    settled: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that the person who is asked for a yes should know. `code` is stable, for programs."""

    code: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edited:
    """What giving a lane came to.

    `names` has for each front end's id the id that it has in QEMU: libvirt's user aliases begin with 'ua-'.
    `first_class` and `commandline` are front ends' ids. `ports` are the indices of the PCIe root ports that were added.
    """

    xml: str
    record: Record
    notes: tuple[Notice, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    first_class: tuple[str, ...] = ()
    commandline: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What taking a lane away came to. `notes` name what could not be found, or is used by something else now."""

    xml: str
    notes: tuple[Notice, ...] = ()
