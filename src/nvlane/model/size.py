"""Sizes in bytes, written with the units that people of this field write."""

from __future__ import annotations

import re
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
GIB: Final = 1 << 30
TIB: Final = 1 << 40

_UNITS: Final = {"": 1, "B": 1, "K": KIB, "KIB": KIB, "M": MIB, "MIB": MIB, "G": GIB, "GIB": GIB, "T": TIB, "TIB": TIB}
_DECIMAL: Final = {"KB": "KiB", "MB": "MiB", "GB": "GiB", "TB": "TiB"}
_FORM: Final = re.compile(r"(\d+)\s*([A-Za-z]*)")


def parse_size(text: str) -> int:
    """'4GiB', '512 MiB', '2M', '4096' to bytes. Raises ValueError with the reason.

    KB, MB and GB are refused, for drives count them by 1000 and memory by 1024: the sentence says which to write.
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"'{text}' is not a size; write it as '4GiB', '512MiB' or a number of bytes")
    number, unit = int(match[1]), match[2].upper()
    if unit in _DECIMAL:
        raise ValueError(f"'{text}' has a decimal unit; write {match[1]}{_DECIMAL[unit]}")
    if unit not in _UNITS:
        raise ValueError(f"'{text}' has an unknown unit '{match[2]}'; use KiB, MiB, GiB or TiB")
    return number * _UNITS[unit]


def format_size(size: int) -> str:
    """Bytes to the largest unit that divides them: 1073741824 to '1GiB', 1000 to '1000B'."""
    for unit, factor in (("TiB", TIB), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"


def align_up(size: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is not under `size` (both in bytes)."""
    return -(-size // alignment) * alignment
