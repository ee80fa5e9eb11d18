"""Takes additions out of an XML again, also out of one that libvirt has written anew in the meantime: it re-formats,
and adds addresses, aliases and defaults. What was added is therefore looked for by what it says, never by its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import quoteattr

from nvlane.libvirt.document import Element, parse
from nvlane.libvirt.editor import set_amount
from nvlane.libvirt.match import find_run
from nvlane.libvirt.place import attribute_span, cut, kib, plain
from nvlane.libvirt.record import Addition, Kind, Notice, Record
from nvlane.libvirt.slots import last_port, occupied

#: Keys of what other lanes still need.
Needed = frozenset[tuple[str, ...]]


def remove_all(xml: str, record: Record, standing: Sequence[Record]) -> tuple[str, tuple[Notice, ...]]:
    """Takes out what `record` added and none of `standing` needs, last addition first."""
    needed: Needed = frozenset(addition.key for other in standing for addition in other.additions)
    raw, notes = xml.encode(), list[Notice]()
    for addition in reversed(record.additions):
        raw, note = _remove(raw, addition, needed)
        notes += [note] if note else []
    return raw.decode(), tuple(notes)


def _remove(raw: bytes, addition: Addition, needed: Needed) -> tuple[bytes, Notice | None]:
    shared = addition.key in needed
    parent = parse(raw).find(addition.path)
    if addition.kind is Kind.AMOUNT:
        return _lower(raw, parent, addition, shared=shared)
    if shared:
        return raw, None
    match addition.kind:
        case Kind.ELEMENT:
            return _element(raw, parent, addition)
        case Kind.CONTAINER:
            return _container(raw, parent, addition), None
        case Kind.OPENED:
            return _close(raw, parent, addition), None
        case _:
            return _attribute(raw, parent, addition)


def _element(raw: bytes, parent: Element | None, addition: Addition) -> tuple[bytes, Notice | None]:
    run = find_run(parent, addition.new) if parent is not None else ()
    if not run:
        text = f"<{addition.name}> of this lane is no longer in <{addition.path or 'domain'}>"
        return raw, Notice(code="already-gone", text=f"{text}: somebody else has removed or changed it")
    if addition.port >= 0 and (why := _port_used(parse(raw), addition.port)):
        return raw, Notice(
            code="port-kept",
            text=f"the PCIe root port with index {addition.port} stays: {why}",
            remedy="remove that first, and then the port with 'virsh edit'",
        )
    return cut(raw, run[0].start, run[-1].end, addition.text), None


def _port_used(root: Element, port: int) -> str:
    if port in occupied(root):
        return "a device is on it"
    if last_port(root) > port:
        return "libvirt wants no gap in the numbers of its controllers, and there is one with a higher number"
    return ""


def _container(raw: bytes, parent: Element | None, addition: Addition) -> bytes:
    found = parent.find(addition.name) if parent is not None else None
    if found is None or found.text.strip() or (found.children and not _only_defaults(found)):
        return raw
    return cut(raw, found.start, found.end, addition.text)


def _only_defaults(element: Element) -> bool:
    """libvirt names all iothreads where one is named: those from 1 on, with nothing else said of them, mean nothing."""
    ids = [child.attributes.get("id") for child in element.children if len(child.attributes) == 1]
    return element.name == "iothreadids" and sorted(ids, key=str) == sorted(
        str(number) for number in range(1, len(element.children) + 1)
    )


def _close(raw: bytes, element: Element | None, addition: Addition) -> bytes:
    if element is None or element.children or element.text.strip() or addition.old is None:
        return raw
    return raw[: element.start] + addition.old.encode() + raw[element.end :]


def _attribute(raw: bytes, element: Element | None, addition: Addition) -> tuple[bytes, Notice | None]:
    if element is None or (span := attribute_span(raw, element, addition.name)) is None:
        return raw, None
    if addition.name.startswith("xmlns:"):
        prefix = addition.name[6:]
        if any(inner.tag.startswith(f"{prefix}:") for inner in element.walk()):
            return raw, None
    if plain(raw[span[0] : span[1]]) != addition.new:
        text = f"{addition.name} of <{element.tag}> is no longer '{addition.new}', and stays as it is now"
        return raw, Notice(code="changed-since", text=text)
    if addition.old is not None:
        quoted = quoteattr(addition.old, {"'": "&apos;", '"': "&quot;"})[1:-1]
        return raw[: span[0]] + quoted.encode() + raw[span[1] :], None
    start = raw.rindex(addition.name.encode(), element.start, span[0])
    before = raw[:start].rstrip()
    return before + raw[span[1] + 1 :], None


def _lower(raw: bytes, parent: Element | None, addition: Addition, *, shared: bool) -> tuple[bytes, Notice | None]:
    if addition.name.startswith("@"):
        return _lower_count(raw, parent, addition, shared=shared), None
    element = parent.first(addition.name) if parent is not None else None
    if element is None:
        return raw, None
    left = kib(element) - addition.amount
    if shared:
        return set_amount(raw, element, max(left, 0)), None
    if addition.old is None and left <= int(addition.new):
        return cut(raw, element.start, element.end, addition.text), None
    if addition.old is not None and _amount_of(addition.old) == left:
        return raw[: element.start] + addition.old.encode() + raw[element.end :], None
    return set_amount(raw, element, max(left, 0)), None


def _amount_of(xml: str) -> int:
    return kib(parse(xml.encode()))


def _lower_count(raw: bytes, element: Element | None, addition: Addition, *, shared: bool) -> bytes:
    span = attribute_span(raw, element, addition.name[1:]) if element is not None else None
    if element is None or span is None:
        return raw
    left = int(raw[span[0] : span[1]], 0) - addition.amount
    if left <= 0 and not shared and addition.old is None:
        start = raw.rindex(addition.name[1:].encode(), element.start, span[0])
        return raw[:start].rstrip() + raw[span[1] + 1 :]
    return raw[: span[0]] + str(max(left, 0)).encode() + raw[span[1] :]
