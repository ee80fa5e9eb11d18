"""What operations find before they change something, and what they get by it: values that the journal keeps.

`Found` is the state before; with the step it is enough to make the inverse. `Result` is what only the deed itself
could tell (a process id, an inode); a step that was cut short may have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from nvlane.facts.shape import Drive


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModule:
    """`missing`: the module and those that it pulls in, as far as they were not loaded, in the order of loading."""

    TAGGED: ClassVar[bool] = True
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFunction:
    """A PCI function: driver and driver_override ('' for none), 'vendor:device' as hexadecimal, IOMMU group; and the
    drive that it is while the kernel's nvme driver has it."""

    TAGGED: ClassVar[bool] = True
    present: bool
    driver: str = ""
    override: str = ""
    identity: str = ""
    group: int | None = None
    drive: Drive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPool:
    """A hugepage pool: counts of pages, persistent (`total`), free and promised to nobody, and surplus."""

    TAGGED: ClassVar[bool] = True
    total: int
    free: int
    surplus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPaths:
    """`missing`: directories that are not there yet, outermost first."""

    TAGGED: ClassVar[bool] = True
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMount:
    """What is mounted exactly there ('' for nothing), with its options."""

    TAGGED: ClassVar[bool] = True
    fstype: str
    options: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundImage:
    """Whether the path is taken, and the name under which the image grows until it is whole."""

    TAGGED: ClassVar[bool] = True
    exists: bool
    growing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProcess:
    """Before a start: directories to be made, sockets that are already in the way, and the token that will prove, in
    the process's environment, that it is ours."""

    TAGGED: ClassVar[bool] = True
    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    token: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPlugged:
    """The ids of the devices that the machine already has."""

    TAGGED: ClassVar[bool] = True
    present: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundShared:
    """A thing that several runs may need at once (a mount, a node of configfs, a connection), by a name of its own.
    `missing` when it is not there, or only because other runs made it: the last of them to end takes it away."""

    TAGGED: ClassVar[bool] = True
    name: str
    missing: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundOwner:
    """Whose a path is; `present` False when it is not there."""

    TAGGED: ClassVar[bool] = True
    present: bool
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundDomain:
    """A libvirt domain: its definition ('' when it is gone), and libvirt's number of it while it runs (-1: it does
    not). `has` are the aliases and ids that a running one has of those that are plugged."""

    TAGGED: ClassVar[bool] = True
    xml: str
    number: int = -1
    has: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBlock:
    """The block layer of a machine: whether it answers, the names of its nodes and jobs, and the limits of the disk
    that is to get some (as query-block names them)."""

    TAGGED: ClassVar[bool] = True
    answers: bool
    nodes: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundNothing:
    """For inverses that look for themselves while they work, because every one of their parts is idempotent."""

    TAGGED: ClassVar[bool] = True


Found = (
    FoundModule
    | FoundFunction
    | FoundPool
    | FoundPaths
    | FoundMount
    | FoundImage
    | FoundProcess
    | FoundPlugged
    | FoundShared
    | FoundOwner
    | FoundDomain
    | FoundBlock
    | FoundNothing
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeProcess:
    """A process: its id, its start time in clock ticks since boot, and which boot (an id alone may be given again)."""

    TAGGED: ClassVar[bool] = True
    pid: int
    start_time: int
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeImage:
    """An image as it was when it was made; sizes in bytes, time in nanoseconds."""

    TAGGED: ClassVar[bool] = True
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundNamespace:
    """The namespace that was bound to `path`: what the plan could not know. Sizes in bytes; the fingerprint is SHA-256
    over byte ranges ((offset, length), ...) as the host read them, '' when it could not."""

    TAGGED: ClassVar[bool] = True
    path: str
    device: str
    size: int
    block_size: int
    ranges: tuple[tuple[int, int], ...] = ()
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeDomain:
    """A domain as libvirt shows it after it was defined anew."""

    TAGGED: ClassVar[bool] = True
    settled: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedDomain:
    """libvirt's number of a domain that was started."""

    TAGGED: ClassVar[bool] = True
    number: int


Result = MadeProcess | MadeImage | BoundNamespace | MadeDomain | StartedDomain
