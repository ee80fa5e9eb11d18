"""Finds again what was added to an XML: by the alias, or by everything that it says being said there still."""

from __future__ import annotations

from nvlane.libvirt.document import QEMU_SPACE, Element, parse

#: Prefix of aliases that belong to the user; libvirt keeps them (docs/formatdomain, 'Devices').
USER_ALIAS = "ua-"


def find_run(parent: Element, xml: str) -> tuple[Element, ...]:
    """The neighbours in `parent` that are the elements of `xml`; () if they are not there."""
    wanted = fragment(xml, parent.space)
    children = parent.children
    for start in range(len(children) - len(wanted) + 1):
        run = children[start : start + len(wanted)]
        if all(says(there, ours) for there, ours in zip(run, wanted, strict=True)):
            return run
    return ()


def fragment(xml: str, space: str = "") -> tuple[Element, ...]:
    """Elements of `space` and, with whatever prefix, of QEMU's name space."""
    prefixes = {tag.split(":")[0] for tag in _tags(xml) if ":" in tag} or {"qemu"}
    declared = " ".join(f"xmlns:{prefix}='{QEMU_SPACE}'" for prefix in sorted(prefixes))
    return parse(f"<x xmlns='{space}' {declared}>{xml}</x>".encode()).children


def _tags(xml: str) -> set[str]:
    return {part.split()[0].rstrip("/>") for part in xml.split("<")[1:] if part and part[0] not in "/!?"}


def says(there: Element, ours: Element) -> bool:
    """Whether `there` is `ours`: the same kind with the same user alias, or all that ours says."""
    if (there.name, there.space) != (ours.name, ours.space):
        return False
    alias = _alias(ours)
    if alias and _alias(there) == alias:
        return True
    if ours.text.strip() and not ours.children and not _equal(there.text.strip(), ours.text.strip()):
        return False
    if not all(_equal(there.attributes.get(key, ""), value) for key, value in ours.attributes.items()):
        return False
    return all(any(says(other, child) for other in there.children) for child in ours.children)


def _alias(element: Element) -> str:
    name = element.value("alias@name")
    return name if name.startswith(USER_ALIAS) else ""


def _equal(there: str, ours: str) -> bool:
    """'0x5' and '0x05' are the same to libvirt."""
    if there == ours:
        return True
    try:
        return int(there, 0) == int(ours, 0)
    except ValueError:
        return False
