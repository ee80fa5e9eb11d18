"""A domain's XML with the place of every element in its bytes.

Edits are made in the bytes, at places that this finds, so that what nvlane does not know stays as it is: comments,
foreign name spaces, entities, the quotes and the white space of whoever wrote it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from nvlane.model.errors import Refused

QEMU_SPACE: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
_STEP: Final = re.compile(r"(?P<name>[\w:-]+)(?:\[(?P<key>\w+)=(?P<value>[^\]]*)\])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element. The four offsets are in bytes: its '<', the end of its opening tag, the '<' of its closing tag and
    its end; the closing tag of `<x/>` is empty. `tag` is as written, `name` without prefix, `space` its name space."""

    tag: str
    name: str
    space: str
    attributes: Mapping[str, str]
    start: int
    opened: int
    closing: int
    end: int
    text: str
    children: tuple[Element, ...] = ()
    spaces: Mapping[str, str] = field(default_factory=dict)  # prefixes to name spaces that hold inside

    def each(self, name: str, space: str = "") -> Iterator[Element]:
        """The children of that name; a libvirt element is in no name space."""
        return (child for child in self.children if child.name == name and child.space == space)

    def first(self, name: str, space: str = "") -> Element | None:
        return next(self.each(name, space), None)

    def walk(self) -> Iterator[Element]:
        """This element and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, path: str) -> Element | None:
        """The first at 'cpu/numa/cell[id=0]'; '' is this element itself. 'qemu:NAME' is one of QEMU's name space,
        whatever its prefix is here."""
        return next(self.iterate(path), None)

    def iterate(self, path: str) -> Iterator[Element]:
        if not path:
            yield self
            return
        step, _, rest = path.partition("/")
        match = _STEP.fullmatch(step)
        assert match is not None, step
        space, name = (QEMU_SPACE, match["name"][5:]) if match["name"].startswith("qemu:") else ("", match["name"])
        for child in self.each(name, space):
            if match["key"] is None or child.attributes.get(match["key"]) == match["value"]:
                yield from child.iterate(rest)

    def value(self, path: str) -> str:
        """The text of an element, or with '@name' at the end of the path an attribute; '' where it is not there."""
        path, _, attribute = path.partition("@")
        found = self.find(path.rstrip("/"))
        if found is None:
            return ""
        return found.attributes.get(attribute, "") if attribute else found.text.strip()


class _Builder:
    """Collects what expat tells, with the offsets that only its parser knows."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.root: Element | None = None
        self.parser = expat.ParserCreate(encoding="utf-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = self._doctype
        self._open: list[tuple[str, dict[str, str], int, dict[str, str], list[Element], list[str]]] = []

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        inherited = self._open[-1][3] if self._open else {}
        declared = {key[6:]: value for key, value in attributes.items() if key == "xmlns" or key.startswith("xmlns:")}
        self._open.append((tag, attributes, self.parser.CurrentByteIndex, {**inherited, **declared}, [], []))

    def _end(self, tag: str) -> None:
        _, attributes, start, spaces, children, text = self._open.pop()
        opened = _tag_end(self.raw, start)
        empty = self.raw[opened - 2 : opened] == b"/>"
        closing = opened if empty else self.parser.CurrentByteIndex
        prefix, _, name = tag.rpartition(":")
        element = Element(
            tag=tag,
            name=name,
            space=spaces.get(prefix, ""),
            attributes=attributes,
            start=start,
            opened=opened,
            closing=closing,
            end=opened if empty else self.raw.index(b">", closing) + 1,
            text="".join(text),
            children=tuple(children),
            spaces=spaces,
        )
        if self._open:
            self._open[-1][4].append(element)
        else:
            self.root = element

    def _text(self, data: str) -> None:
        if self._open:
            self._open[-1][5].append(data)

    def _doctype(self, *_: object) -> None:
        raise Refused(
            "the domain's XML has a document type", remedy="remove the <!DOCTYPE>; libvirt itself writes none"
        )


def _tag_end(raw: bytes, start: int) -> int:
    """The offset after the '>' of the tag at `start`; a '>' within quotes does not end it."""
    quote = 0
    for offset in range(start, len(raw)):
        byte = raw[offset]
        if quote:
            quote = 0 if byte == quote else quote
        elif byte in b"\"'":
            quote = byte
        elif byte == 0x3E:
            return offset + 1
    raise AssertionError("expat has read a tag without an end")


@functools.lru_cache(maxsize=32)
def parse(raw: bytes) -> Element:
    """The root element. Raises Refused for what is no well-formed XML, or has a document type."""
    builder = _Builder(raw)
    try:
        builder.parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise Refused(
            f"the domain's XML cannot be read: {error}", remedy="see 'virt-xml-validate FILE domain'"
        ) from error
    assert builder.root is not None
    return builder.root


def parse_domain(xml: str) -> Element:
    """The root of a domain's XML. Raises Refused for anything else."""
    root = parse(xml.encode())
    if root.name != "domain":
        raise Refused(f"this is no domain's XML: it begins with <{root.tag}>", remedy="give the XML of 'virsh dumpxml'")
    return root
