"""The JSON schema of a spec (draft 2020-12), made from the same declarations that the reader follows.

A schema says what one key can hold. Rules over several keys are in `rules/`; the documentation lists them.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any, Final

from nvlane.model.codec import encode
from nvlane.model.cpus import format_cpus
from nvlane.model.size import format_size
from nvlane.spec.declaration import Declared, declared, lane_classes, tables
from nvlane.spec.key import Kind
from nvlane.spec.value import LARGEST

_SIZE: Final = r"^\s*[0-9]+\s*([KkMmGgTt]([Ii][Bb])?|[Bb])?\s*$"
_CPUS: Final = r"^\s*(0[xX][0-9a-fA-F]+|\s*[0-9]+(-[0-9]+)?\s*(,\s*[0-9]+(-[0-9]+)?\s*)*)$"
_DRIVE: Final = (
    r"^(serial:[ -~]{1,20}(/vf[0-9]{1,5})?|([0-9a-fA-F]{4,8}:)?[0-9a-fA-F]{2}:[01][0-9a-fA-F]\.[0-7](/vf[0-9]{1,5})?)$"
)


def json_schema() -> dict[str, Any]:
    """The schema as a value that json.dump takes."""
    kinds = lane_classes()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nvlane spec",
        "description": "A virtual machine and the lanes that bring storage into it.",
        "type": "object",
        "additionalProperties": False,
        "required": ["machine"],
        "properties": {
            "machine": {"$ref": "#/$defs/Machine"},
            "lane": {"type": "array", "items": {"oneOf": [_ref(lane) for lane in kinds.values()]}},
        },
        "$defs": {name: _table(table) for name, table in tables().items()},
    }


def _ref(table: type) -> dict[str, str]:
    return {"$ref": f"#/$defs/{table.__name__}"}


def _table(table: type) -> dict[str, Any]:
    keys = declared(table)
    properties = {key.name: _key(key) for key in keys.values()}
    required = [key.name for key in keys.values() if key.required]
    kind = getattr(table, "KIND", None)
    if kind is not None:
        properties = {"kind": {"const": str(kind)}, **properties}
        required = ["kind", *required]
    return {
        "description": " ".join((table.__doc__ or "").split()),
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": properties,
    }


def _key(key: Declared) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": key.words}
    if key.item is None:
        schema |= _one(key, key.hint)
    else:
        schema |= {"type": "array", "items": _one(key, key.item)}
    if not key.required and key.default is not None:
        schema["default"] = _default(key)
    if key.example:
        schema["examples"] = [key.example]
    return schema


def _default(key: Declared) -> Any:
    if key.kind is Kind.SIZE:
        return format_size(key.default) if key.default else 0
    if key.kind is Kind.CPUS:
        return format_cpus(key.default)
    return encode(key.default)


def _one(key: Declared, hint: Any) -> dict[str, Any]:
    bounds = {"minimum": key.minimum, "maximum": LARGEST if key.maximum is None else key.maximum}
    match key.kind:
        case Kind.SIZE:
            return {"anyOf": [{"type": "integer", **bounds}, {"type": "string", "pattern": _SIZE}]}
        case Kind.CPUS:
            return {"type": "string", "pattern": _CPUS}
        case Kind.PATH:
            return {"type": "string", "minLength": 1}
        case Kind.DRIVE:
            return {"type": "string", "pattern": _DRIVE}
        case Kind.PLAIN:
            return _plain(key, hint, bounds)


def _plain(key: Declared, hint: Any, bounds: dict[str, int]) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _ref(hint)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return {"enum": [str(choice) for choice in hint]}
    if hint is bool:
        return {"type": "boolean"}
    if hint is int:
        return {"type": "integer", **bounds}
    return {"type": "string", **({"pattern": f"^({key.pattern})$"} if key.pattern else {})}
