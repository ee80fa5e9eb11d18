"""Sets of processors, as the kernel ('0-3,8') and SPDK ('0x3') write them."""

from __future__ import annotations

import re
from collections.abc import Iterable


def parse_cpus(text: str) -> frozenset[int]:
    """'0x3' or '0-1,4' to {0, 1} or {0, 1, 4}. Raises ValueError."""
    text = text.strip()
    if re.fullmatch(r"0[xX][0-9a-fA-F]+", text):
        mask = int(text, 16)
        if mask == 0:
            raise ValueError("a cpumask of 0 names no processor")
        return frozenset(bit for bit in range(mask.bit_length()) if mask >> bit & 1)
    cpus: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None:
            raise ValueError(f"'{text}' is not a set of processors; write it as '0-3,8' or '0x3'")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"'{part.strip()}' runs backwards; write {last}-{first}")
        if last > 8191:
            raise ValueError(f"processor {last} is past any that Linux numbers (8191)")
        cpus.update(range(first, last + 1))
    return frozenset(cpus)


def format_cpus(cpus: Iterable[int]) -> str:
    """{0, 1, 4} to '0-1,4'."""
    parts: list[str] = []
    ordered = sorted(set(cpus))
    start = 0
    for index, cpu in enumerate(ordered):
        if index + 1 == len(ordered) or ordered[index + 1] != cpu + 1:
            first = ordered[start]
            parts.append(str(first) if first == cpu else f"{first}-{cpu}")
            start = index + 1
    return ",".join(parts)
