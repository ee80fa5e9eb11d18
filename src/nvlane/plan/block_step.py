"""Steps that change the block layer of a machine that runs: snapshots, jobs, limits, sizes.

QEMU forgets all of them when it ends, so they are volatile; the files that they leave are steps of their own
(`CreateImage`). Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar


class JobKind(StrEnum):
    MIRROR = "mirror"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeSnapshot:
    """From now on the guest writes to the node `overlay`, which is plugged already, and `node` stays as it is now.

    `agent` is the socket of the guest agent that freezes the guest's file systems meanwhile ('': nobody is asked)."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    node: str
    overlay: str
    agent: str = ""

    def describe(self) -> str:
        return f"let {self.machine} write to {self.overlay} instead of {self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBlockJob:
    """Begin to copy `node` to the node `target`, which is plugged already.

    `sync` is 'full', 'top' (what its overlay holds), 'none' (what is written from now on) or 'bitmap'. A backup with
    `new_bitmap` begins to note in the dirty bitmap `bitmap` what changes after it, at the very same moment; with
    'bitmap' it copies what is noted there. `persistent`: the bitmap is kept in the image. `speed` in bytes a second
    (0: as fast as it goes)."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    kind: JobKind
    id: str
    node: str
    target: str
    sync: str
    bitmap: str = ""
    new_bitmap: bool = False
    persistent: bool = False
    speed: int = 0
    agent: str = ""

    def describe(self) -> str:
        return f"{self.kind} {self.node} of {self.machine} to {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ThrottleDisk:
    """Limit what a disk may do: `limits` as QMP's block_set_io_throttle names them, 0 for no limit. `device` is the
    front end as query-block names it."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    device: str
    limits: Mapping[str, int] = field(default_factory=dict)

    def describe(self) -> str:
        said = ", ".join(f"{name} {value}" for name, value in self.limits.items() if value)
        return f"limit {self.device} of {self.machine} to {said or 'nothing'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeDisk:
    """Give a node another size. It is not taken back: the guest may have written beyond the old end by then."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    node: str
    size: int

    def describe(self) -> str:
        return f"make {self.node} of {self.machine} {self.size} bytes"


# The inverses.


@dataclass(frozen=True, slots=True, kw_only=True)
class DropSnapshot:
    """Write what the overlay holds back into `node`, and let the guest go on there."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    node: str
    overlay: str
    agent: str = ""

    def describe(self) -> str:
        return f"let {self.machine} write to {self.node} again"


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelBlockJob:
    """End a job where it stands, and forget the bitmap that began with it."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    id: str
    node: str
    new_bitmap: str = ""

    def describe(self) -> str:
        return f"cancel the job {self.id} of {self.machine}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreThrottle:
    """Give a disk back the limits that it had."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    device: str
    limits: Mapping[str, int]

    def describe(self) -> str:
        return f"give {self.device} of {self.machine} back the limits that it had"


BlockStep = TakeSnapshot | StartBlockJob | ThrottleDisk | ResizeDisk
BlockInverse = DropSnapshot | CancelBlockJob | RestoreThrottle
