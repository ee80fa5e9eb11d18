"""Edits of a domain's XML in its bytes, each with the record that undoes it.

Lanes share what they both need (shared memory, `<qemu:commandline>`): such an addition has the same key in the
records of both, and the value that the first of them found. It is taken away with the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from nvlane.libvirt.document import QEMU_SPACE, Element, parse
from nvlane.libvirt.markup import Node, attribute, node, render
from nvlane.libvirt.place import attribute_span, child_lead, kib, lead, newline, plain, tag_tail
from nvlane.libvirt.record import Addition, Kind, Record


class Editor:
    """One XML text that is being changed. `standing` are the records of the lanes that it has already."""

    def __init__(self, xml: str, standing: Sequence[Record] = ()) -> None:
        self.raw = xml.encode()
        self.additions: list[Addition] = []
        self._standing: dict[tuple[str, ...], Addition] = {}
        for record in standing:
            for addition in record.additions:
                self._standing.setdefault(addition.key, addition)

    @property
    def root(self) -> Element:
        return parse(self.raw)

    @property
    def xml(self) -> str:
        return self.raw.decode()

    def at(self, path: str) -> Element:
        found = self.root.find(path)
        assert found is not None, path
        return found

    def standing_ports(self) -> list[Addition]:
        """The PCI controllers that other lanes have added."""
        return [addition for addition in self._standing.values() if addition.port >= 0]

    def claim(self, addition: Addition) -> None:
        """This lane needs it too."""
        if addition.key not in {mine.key for mine in self.additions}:
            self.additions.append(addition)

    def insert(self, path: str, items: Iterable[Node], *, after: Sequence[str] = (), port: int = -1) -> None:
        """A run of new elements in the element at `path`, behind the last child named in `after` or the last of all."""
        run = tuple(items)
        text, name = self._place(path, run, after), run[0].tag
        written = "".join(render(item, flat=True) for item in run)
        self.additions.append(Addition(kind=Kind.ELEMENT, path=path, name=name, new=written, text=text, port=port))

    def container(self, path: str, name: str, *, after: Sequence[str] = ()) -> str:
        """An element to hold others, made where it is not there. Its path."""
        inner = f"{path}/{name}".lstrip("/")
        wanted = Addition(kind=Kind.CONTAINER, path=path, name=name)
        found = self.root.find(inner)
        if found is None:
            text = self._place(path, (node(self._tag(name)),), after, hollow=True)
            self.additions.append(replace(wanted, text=text))
        else:
            self._share_opened(path)
            if ":" in found.tag:
                self._share_space(found.tag.partition(":")[0])  # before the element: it is taken away after it
            self._share(wanted)
        return inner

    def setting(self, path: str, item: Node, *, after: Sequence[str] = ()) -> None:
        """A child that is there once at most; its attributes are set where it is there already."""
        found = self.at(path).first(item.tag)
        wanted = Addition(kind=Kind.ELEMENT, path=path, name=item.tag, new=render(item, flat=True))
        if found is None:
            text = self._place(path, (item,), after)
            self.additions.append(replace(wanted, text=text))
            return
        self._share_opened(path)
        self._share(wanted)
        for key, value in item.attributes.items():
            self.attribute(f"{path}/{item.tag}".lstrip("/"), key, value)

    def attribute(self, path: str, name: str, value: str) -> None:
        """Sets one attribute of the element at `path`."""
        element = self.at(path)
        wanted = Addition(kind=Kind.ATTRIBUTE, path=path, name=name, new=value)
        if element.attributes.get(name) == value:
            self._share(wanted)
            return
        span = attribute_span(self.raw, element, name)
        written = attribute(name, value)
        if span is None:
            at, text = tag_tail(self.raw, element), f" {written}"
            self.raw = self.raw[:at] + text.encode() + self.raw[at:]
            self.additions.append(replace(wanted, text=text))
        else:
            old = plain(self.raw[span[0] : span[1]])
            self.raw = self.raw[: span[0]] + written[len(name) + 2 : -1].encode() + self.raw[span[1] :]
            self.additions.append(replace(wanted, old=old))

    def raise_amount(
        self, path: str, name: str, amount: int, base: int, *, after: Sequence[str] = (), **more: str
    ) -> int:
        """Adds `amount` (KiB, or a count) to a number, which is `base` where it is not there yet. The new number.

        `more` are further attributes of an element that has to be made.
        """
        element = self.at(path).first(name)
        wanted = Addition(kind=Kind.AMOUNT, path=path, name=name, amount=amount)
        if element is None:
            total = base + amount
            unit = more if name == "iothreads" else {**more, "unit": "KiB"}
            text = self._place(path, (node(name, text=total, **unit),), after)
            self.additions.append(replace(wanted, new=str(base), text=text))
            return total
        total = kib(element) + amount
        old = self.raw[element.start : element.end].decode()
        self.raw = set_amount(self.raw, element, total)
        earlier = self._standing.get(wanted.key)
        kept = replace(earlier, amount=amount) if earlier else replace(wanted, old=old)
        self.additions.append(kept)
        return total

    def raise_count(self, path: str, name: str, amount: int) -> None:
        """Adds to a number in an attribute; an attribute that is not there counts as 0."""
        element = self.at(path)
        wanted = Addition(kind=Kind.AMOUNT, path=path, name=f"@{name}", amount=amount)
        span = attribute_span(self.raw, element, name)
        if span is None:
            text = f" {attribute(name, str(amount))}"
            at = tag_tail(self.raw, element)
            self.raw = self.raw[:at] + text.encode() + self.raw[at:]
            self.additions.append(replace(wanted, text=text))
            return
        old = self.raw[span[0] : span[1]].decode()
        self.raw = self.raw[: span[0]] + str(int(old, 0) + amount).encode() + self.raw[span[1] :]
        earlier = self._standing.get(wanted.key)
        self.additions.append(replace(earlier, amount=amount) if earlier else replace(wanted, old=old))

    def has_standing(self, path: str, name: str) -> bool:
        """Whether another lane has put an element of that name there."""
        return any((a.path, a.name, a.kind) == (path, name, Kind.ELEMENT) for a in self._standing.values())

    def share_standing(self, path: str, name: str) -> None:
        """This lane needs that element too."""
        for addition in self._standing.values():
            if (addition.path, addition.name, addition.kind) == (path, name, Kind.ELEMENT):
                self.claim(addition)

    def qemu_prefix(self) -> str:
        """The prefix of QEMU's name space here, declared at the root where it is not."""
        for prefix, space in self.root.spaces.items():
            if space == QEMU_SPACE and prefix:
                self._share_space(prefix)
                return prefix
        self.attribute("", "xmlns:qemu", QEMU_SPACE)
        return "qemu"

    def _share_opened(self, path: str) -> None:
        self._share(Addition(kind=Kind.OPENED, path=path, name=""))

    def _share_space(self, prefix: str) -> None:
        self._share(Addition(kind=Kind.ATTRIBUTE, path="", name=f"xmlns:{prefix}", new=QEMU_SPACE))

    def _tag(self, name: str) -> str:
        return f"{self.qemu_prefix()}:{name[5:]}" if name.startswith("qemu:") else name

    def _share(self, wanted: Addition) -> None:
        standing = self._standing.get(wanted.key)
        holds = wanted.kind in (Kind.CONTAINER, Kind.OPENED)
        if standing is not None and (holds or standing.new == wanted.new):
            self.claim(standing)

    def _place(self, path: str, run: tuple[Node, ...], after: Sequence[str], *, hollow: bool = False) -> str:
        """Inserts, and gives the text that was inserted. `hollow` elements get a closing tag of their own."""
        if self._must_open(self.at(path)):
            self._open(path)
        else:
            self._share_opened(path)
        parent = self.at(path)
        indent, end = child_lead(self.raw, parent), newline(self.raw)
        neighbours = [child for child in parent.children if child.name in after] or parent.children
        at = neighbours[-1].end if neighbours else parent.opened
        flat = indent is None
        parts = [_hollow(item, indent, end) if hollow else _render(item, indent, end) for item in run]
        text = "".join(parts) if flat else "".join(f"{end}{indent}{part}" for part in parts)
        self.raw = self.raw[:at] + text.encode() + self.raw[at:]
        return text

    def _must_open(self, element: Element) -> bool:
        return element.opened == element.closing

    def _open(self, path: str) -> None:
        element = self.at(path)
        old = self.raw[element.start : element.end].decode()
        head = self.raw[element.start : element.opened].decode()
        if head.endswith("/>"):
            head = f"{head[:-2].rstrip()}>"
        own = lead(self.raw, element.start)
        inner = "" if own is None else f"{newline(self.raw)}{own}"
        new = f"{head}{inner}</{element.tag}>"
        self.raw = self.raw[: element.start] + new.encode() + self.raw[element.end :]
        self.additions.append(Addition(kind=Kind.OPENED, path=path, name="", new=new, old=old))


def set_amount(raw: bytes, element: Element, total: int) -> bytes:
    """The number of an element in KiB, its attributes as they are."""
    head = raw[element.start : element.opened]
    if (span := attribute_span(raw, element, "unit")) is not None:
        head = raw[element.start : span[0]] + b"KiB" + raw[span[1] : element.opened]
    return raw[: element.start] + head + str(total).encode() + raw[element.closing :]


def _render(item: Node, indent: str | None, end: str) -> str:
    return render(item, flat=True) if indent is None else render(item, indent=indent, newline=end)


def _hollow(item: Node, indent: str | None, end: str) -> str:
    head = render(item, flat=True).removesuffix("/>")
    return f"{head}></{item.tag}>" if indent is None else f"{head}>{end}{indent}</{item.tag}>"
