"""White space and tags in the bytes of an XML text: how new elements are indented, how old ones are cut out."""

from __future__ import annotations

import re
from typing import Final
from xml.sax.saxutils import unescape

from nvlane.libvirt.document import Element, parse

_ATTRIBUTE: Final = re.compile(rb"([\w:.-]+)\s*=\s*(\"[^\"]*\"|'[^']*')")
#: Bytes of one unit (virScaleInteger in libvirt's util/virutil.c).
_UNITS: Final[dict[str, int]] = {
    **dict.fromkeys(("b", "byte", "bytes"), 1),
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGTPE", 1)},
    **{f"{letter}{end}": 1024**power for power, letter in enumerate("KMGTPE", 1) for end in ("", "iB")},
    "k": 1024,
}


def newline(raw: bytes) -> str:
    """What ends a line here: the first line decides."""
    end = raw.find(b"\n")
    return "\r\n" if end > 0 and raw[end - 1 : end] == b"\r" else "\n"


def lead(raw: bytes, start: int) -> str | None:
    """The indentation of what starts at `start`; None if it does not start a line."""
    line = raw.rfind(b"\n", 0, start) + 1
    before = raw[line:start]
    return before.decode() if line and not before.strip() else None


def child_lead(raw: bytes, parent: Element) -> str | None:
    """The indentation of a child of `parent`: that of the last one it has, or two more than its own."""
    if parent.children:
        return lead(raw, parent.children[-1].start)
    own = lead(raw, parent.start) if parent.start and raw[: parent.start].strip() else _root_lead(raw, parent)
    return None if own is None else own + _unit(raw)


def _root_lead(raw: bytes, parent: Element) -> str | None:
    """An element that begins the text is at the left, and its children on lines of their own."""
    return lead(raw, parent.start) or ""


def _unit(raw: bytes) -> str:
    """One level of indentation, seen at the root's children."""
    root = parse(raw)
    for child in root.children:
        if seen := lead(raw, child.start):
            return seen
    return "  "


def cut(raw: bytes, start: int, end: int, text: str) -> bytes:
    """Without the elements from `start` to `end`: exactly the bytes that were inserted where they are still there, and
    otherwise with the white space that set them apart."""
    wrote = text.encode()
    if wrote and raw[end - len(wrote) : end] == wrote:
        return raw[: end - len(wrote)] + raw[end:]
    if lead(raw, start) is not None:
        start = raw.rfind(b"\n", 0, start)
        start -= raw[start - 1 : start] == b"\r"
    return raw[:start] + raw[end:]


def attribute_span(raw: bytes, element: Element, name: str) -> tuple[int, int] | None:
    """Where the value of an attribute stands, without its quotes."""
    for match in _ATTRIBUTE.finditer(raw, element.start, element.opened):
        if match[1].decode() == name:
            return match.start(2) + 1, match.end(2) - 1
    return None


def tag_tail(raw: bytes, element: Element) -> int:
    """Where a further attribute goes: after the last one, before white space and the end of the tag."""
    end = element.opened - (2 if raw[element.opened - 2 : element.opened] == b"/>" else 1)
    return len(raw[:end].rstrip())


def kib(element: Element) -> int:
    """A size as KiB, libvirt's own unit, rounded up; a number without unit as it is (iothreads)."""
    unit = element.attributes.get("unit", "KiB")
    return -(-int(element.text.strip() or "0") * _UNITS.get(unit, 1024) // 1024)


def plain(value: bytes) -> str:
    """The value of an attribute as XML reads it."""
    return unescape(value.decode(), {"&apos;": "'", "&quot;": '"'})
