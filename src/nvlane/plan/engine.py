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

    @property
    def reconnects(self) -> bool:
        """Whether a guest loses nothing when the target dies and is started anew: QEMU is then told to reconnect."""
        ...

    @property
    def any_block_size(self) -> bool:
        """Whether it can show a drive with larger blocks than the drive has."""
        ...

    def binary(self, facts: Facts) -> str:
        """The absolute path of its program, '' when it is not installed."""
        ...

    def problem(self, facts: Facts, source: str) -> tuple[str, str]:
        """Why it cannot serve `source` on this host, and the remedy; ('', '') when it can."""
        ...

    def read_only_problem(self, frontend: str, source: str) -> str:
        """Why it cannot serve `source` read-only behind `frontend`; '' when it can."""
        ...


Engines = Mapping[str, Engine]
