"""New XML, in the form in which libvirt writes it: two spaces a level, single quotes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.sax.saxutils import escape


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One element to be written. Attributes and children keep their order."""

    tag: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[Node, ...] = ()
    text: str = ""


def node(tag: str, *children: Node | None, text: str | int = "", **attributes: str | int) -> Node:
    """`node('alias', name='ua-x')`; a child of None is left out, and a trailing '_' of a name that Python reserves."""
    return Node(
        tag=tag,
        attributes={key.rstrip("_"): str(value) for key, value in attributes.items()},
        children=tuple(child for child in children if child is not None),
        text=str(text),
    )


def attribute(name: str, value: str) -> str:
    """`name='value'`. A value with double quotes, as JSON has them, stays readable."""
    return f"{name}='{escape(value, {chr(39): '&apos;', chr(10): '&#10;', chr(9): '&#9;'})}'"


def lines(item: Node) -> list[str]:
    """The lines of an element, without the indentation of its place."""
    head = " ".join((f"<{item.tag}", *(attribute(key, value) for key, value in item.attributes.items())))
    if item.children:
        inner = [f"  {line}" for child in item.children for line in lines(child)]
        return [f"{head}>", *inner, f"</{item.tag}>"]
    return [f"{head}>{escape(item.text)}</{item.tag}>"] if item.text else [f"{head}/>"]


def render(item: Node, *, indent: str = "", newline: str = "\n", flat: bool = False) -> str:
    """An element as text; all but its first line are indented. `flat` puts it on one line."""
    parts = lines(item)
    return "".join(part.lstrip() for part in parts) if flat else f"{newline}{indent}".join(parts)
