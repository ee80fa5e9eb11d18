"""How a key of the spec is declared: one field of a dataclass with its words and its kind.

The TOML reader, the JSON schema and the documentation are all made from these declarations.
"""

from __future__ import annotations

import dataclasses
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How the text of a key is read."""

    PLAIN = "plain"  # as its Python type says: str, int, bool, an enum, a table
    SIZE = "size"  # '4GiB' or a number, to bytes
    CPUS = "cpus"  # '0-3,8' or '0x3', to a frozenset
    PATH = "path"  # a path; a relative one is relative to the spec file
    DRIVE = "drive"  # a PCI address, 'serial:…', or a virtual function 'serial:…/vf0'


def key(
    words: str, *, kind: Kind = Kind.PLAIN, default: Any = dataclasses.MISSING, minimum: int | None = None,
    maximum: int | None = None, pattern: str = "", example: str = "",
) -> Any:  # fmt: skip
    """Declare a key: `words` is its documentation, one sentence; the bounds are in the key's own unit."""
    metadata = {
        "words": words, "kind": kind, "minimum": minimum, "maximum": maximum, "pattern": pattern,
        "example": example,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)
