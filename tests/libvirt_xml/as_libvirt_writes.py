"""A stand-in for what libvirt does to an XML that it is given: it parses it and writes all of it anew.

Comments go, devices are put in its own order, defaults and addresses appear, quotes and white space are its own.
"""

from __future__ import annotations

from xml.sax.saxutils import escape

from nvlane.libvirt.document import Element, parse_domain

_DEVICES = ("emulator", "disk", "controller", "interface", "serial", "console", "channel", "input", "tpm", "graphics")


def rewritten(xml: str) -> str:
    """The XML in libvirt's hand. Writing it twice changes nothing more."""
    return "\n".join(_lines(parse_domain(xml), declared=True)) + "\n"


def _lines(element: Element, *, declared: bool = False) -> list[str]:
    attributes = dict(element.attributes)
    children = list(element.children)
    if element.name == "devices":
        children.sort(key=lambda child: _DEVICES.index(child.name) if child.name in _DEVICES else len(_DEVICES))
    extra = _defaults(element)
    if element.name == "disk" and attributes.get("type") == "vhostuser":
        attributes["snapshot"] = "no"
    if declared and "xmlns:qemu" in attributes and not any(c.space and c.tag.startswith("qemu:") for c in children):
        del attributes["xmlns:qemu"]
    head = element.tag + "".join(f" {key}='{_quoted(value)}'" for key, value in sorted(attributes.items()))
    inner = [f"  {line}" for child in children if _says_something(child) for line in _lines(child)]
    inner += [f"  {line}" for line in extra]
    if inner:
        return [f"<{head}>", *inner, f"</{element.tag}>"]
    text = escape(element.text.strip())
    return [f"<{head}>{text}</{element.tag}>" if text else f"<{head}/>"]


def _says_something(element: Element) -> bool:
    """libvirt leaves out what is empty and could as well not be there."""
    empty = not element.children and not element.attributes and not element.text.strip()
    return not (empty and element.name in ("memoryBacking", "iothreadids", "commandline"))


def _defaults(element: Element) -> list[str]:
    """What libvirt adds to a new device."""
    has = {child.name for child in element.children}
    if element.name == "controller" and element.attributes.get("model") == "pcie-root-port" and "target" not in has:
        index = int(element.attributes["index"])
        place = f"slot='0x{index // 8 + 2:02x}' function='0x{index % 8:x}'"
        return [
            "<model name='pcie-root-port'/>",
            f"<target chassis='{index}' port='0x{index:x}'/>",
            f"<address type='pci' domain='0x0000' bus='0x00' {place}/>",
        ]
    if element.name == "memory" and element.attributes.get("model") == "nvdimm" and "address" not in has:
        return ["<address type='dimm' slot='0'/>"]
    return []


def _quoted(value: str) -> str:
    return escape(value, {"'": "&apos;", '"': "&quot;"})
