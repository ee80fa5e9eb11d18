"""The pattern that the in-guest probe writes, made on this side: SplitMix64 from a seed, as little-endian bytes."""

from __future__ import annotations

import struct

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def pattern(seed: int, length: int) -> bytes:
    """The first `length` bytes of the pattern of a 64-bit `seed`; `crates/probe/src/pattern.rs` makes the same."""
    words = []
    state = seed & _MASK
    for _ in range((length + 7) // 8):
        state = (state + _GOLDEN) & _MASK
        z = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        words.append(z ^ (z >> 31))
    return struct.pack(f"<{len(words)}Q", *words)[:length]
