"""Keyrings of the in-memory host."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Final

from nvlane.apply.memory.tree import Tree

_FIRST: Final = 1001


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    keyring: str
    kind: str
    description: str
    payload: bytes


class Keyrings:
    """'.nvme' and '@u', in the words of /proc/keys (Documentation/security/keys/core.rst)."""

    def __init__(self, tree: Tree) -> None:
        self._keyrings = {".nvme": 1, "@u": 2}
        self._keys: dict[int, _Key] = {}
        self._next = _FIRST
        tree.add_control("/proc/keys", read=self._text)

    def find(self, keyring: str, kind: str, description: str) -> int:
        wanted = (keyring, kind, description)
        return next((n for n, key in self._keys.items() if (key.keyring, key.kind, key.description) == wanted), 0)

    def add(self, keyring: str, kind: str, description: str, payload: bytes) -> None:
        if keyring not in self._keyrings:
            raise OSError(errno.ENOKEY, os.strerror(errno.ENOKEY), keyring)
        number = self.find(keyring, kind, description) or self._next
        self._next = max(self._next, number + 1)
        self._keys[number] = _Key(keyring=keyring, kind=kind, description=description, payload=payload)

    def unlink(self, keyring: str, number: int) -> None:
        if number not in self._keys or self._keys[number].keyring != keyring:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), keyring)
        del self._keys[number]

    def reboot(self) -> None:
        self._keys.clear()

    def _text(self) -> str:
        lines = [f"{n:08x} I------ 1 perm 1f1f0000 0 0 keyring {name}: 0" for name, n in self._keyrings.items()]
        lines += [
            f"0000 I--Q--- 1 perm 3f0b0000 0 0 {key.kind} {key.description}: {len(key.payload)}"
            for key in self._keys.values()
        ]
        return "".join(f"{line}\n" for line in lines)
