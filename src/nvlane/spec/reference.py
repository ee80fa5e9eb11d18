"""docs/spec.md: every key of the spec and every rule, made from the declarations and the rules themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Final

from nvlane.model.cpus import format_cpus
from nvlane.model.size import format_size
from nvlane.spec.declaration import Declared, declared, lane_classes, tables
from nvlane.spec.key import Kind
from nvlane.spec.lane import EmulatedNamespace, Fdp, PmemNamespace, Zoned
from nvlane.spec.machine import GuestNode
from nvlane.spec.rules import across, emulated, fabrics, machine, nvdimm, userspace, vhost_user

_HEAD: Final = """\
# The spec

<!-- Made by `nvlane schema --reference`; edit the declarations in src/nvlane/spec instead. -->

A spec is a TOML file: one `[machine]` table and any number of `[[lane]]` tables, each with a `kind`. It says
what you want, never how. `docs/spec.schema.json` is its JSON schema (`nvlane schema` prints it).

Sizes are written `4GiB`, `512MiB`, `2M` or as a number of bytes; units are powers of 1024, and `GB` is refused
because drives count it by 1000. Processors are `0-3,8` or a mask, `0x3`. A relative path starts at the
directory of the spec. A drive is a PCI address (`0000:04:00.0`) or its serial number
(`serial:S4EVNX0M512345`), which survives renumbering; `serial:S4EVNX0M512345/vf0` is its first virtual function.
"""

_HEADINGS: Final[dict[str, str]] = {
    "Machine": "[machine]",
    GuestNode.__name__: "[[machine.numa]]",
    EmulatedNamespace.__name__: "[[lane.namespaces]] of `emulated`",
    PmemNamespace.__name__: "[[lane.namespaces]] of `nvdimm`",
    Zoned.__name__: "[lane.namespaces.zoned] of `emulated`",
    Fdp.__name__: "[lane.fdp] of `emulated`",
}

_RULES: Final[dict[str, tuple[Callable[..., Any], ...]]] = {
    "Machine": machine.RULES,
    "Emulated": emulated.RULES,
    "Userspace": userspace.RULES,
    "VhostUser": vhost_user.RULES,
    "Nvdimm": nvdimm.RULES,
    "Fabrics": fabrics.RULES,
}


def reference() -> str:
    """The whole page, Markdown."""
    kinds = {lane.__name__: kind for kind, lane in lane_classes().items()}
    parts = [_HEAD]
    for name, table in tables().items():
        heading = _HEADINGS.get(name) or f"[[lane]] kind = `{kinds[name]}`"
        parts.append(f"## {heading}\n\n{_paragraph(table)}\n\n" + "\n".join(_rows(table)) + "\n")
        if name in _RULES:
            parts.append(_rules(_RULES[name]))
    parts.append("## Across lanes, and across the specs of one command\n\n" + _rules(across.RULES))
    return "\n".join(parts)


def _paragraph(thing: Any) -> str:
    return " ".join((thing.__doc__ or "").split())


def _rules(rules: Iterable[Callable[..., Any]]) -> str:
    return "".join(f"- {_paragraph(rule)}\n" for rule in rules)


def _rows(table: type) -> Iterator[str]:
    yield "| key | what it takes | left out | what it is |"
    yield "| --- | --- | --- | --- |"
    for key in declared(table).values():
        yield f"| `{key.name}` | {_takes(key)} | {_left_out(key)} | {key.words} |"


def _takes(key: Declared) -> str:
    words = {Kind.SIZE: "size", Kind.CPUS: "processors", Kind.PATH: "path", Kind.DRIVE: "drive"}
    if key.kind in words:
        return words[key.kind]
    one = _type(key.item or key.hint)
    if key.maximum is not None:
        one += f" {key.minimum} to {key.maximum}"
    return f"list of {one}" if key.item else one


def _type(hint: Any) -> str:
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return ", ".join(f"`{choice}`" for choice in hint if str(choice))
    if dataclasses.is_dataclass(hint):
        return "table"
    return {bool: "true or false", int: "number", str: "text"}[hint]


def _left_out(key: Declared) -> str:
    if key.required:
        return "required"
    match key.default:
        case None | "" | ():
            return ""
        case bool():
            return str(key.default).lower()
        case int():
            return f"`{format_size(key.default)}`" if key.kind is Kind.SIZE and key.default else str(key.default)
        case frozenset():
            return format_cpus(key.default)
        case _:
            return f"`{key.default}`"
