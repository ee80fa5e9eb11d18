"""The pure half of a vhost-user engine: what it can serve and where its program is.

`targets` holds the engines, one file each; lanes are handed them, so that planning needs no effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from nvlane.facts.shape import Facts


class Engine(Protocol):
    """One kind of target."""

    @property
    def name(self) -> str: ...
    @property
    def frontends(self) -> frozenset[str]:
        """Front ends that it speaks: 'virtio-blk', 'virtio-scsi'."""
        ...

    @property
    def sources(self) -> frozenset[str]:
        """What it can serve: 'drive', 'file', 'malloc', 'null'."""
        ...

    def binary(self, facts: Facts) -> str:
        """The absolute path of its program, '' when it is not installed."""
        ...

    def problem(self, facts: Facts, source: str) -> tuple[str, str]:
        """Why it cannot serve `source` on this host, and the remedy; ('', '') when it can."""
        ...


Engines = Mapping[str, Engine]
