"""The vocabulary of the matrix: ways, operations, answers.

A cell is one way (a lane in one of its kinds) by one operation. It never says more than its evidence: a test that
anybody can run. Where there is none, the answer is `UNPROVEN`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nvlane.model.errors import Bug
from nvlane.spec.lane import LaneKind


class Operation(StrEnum):
    """What can be asked of a lane. The last three are costs: there NO is the good answer."""

    HOT_PLUG = "hot-plug"
    HOT_UNPLUG = "hot-unplug"
    RESIZE = "resize"
    SNAPSHOT = "snapshot"
    MIRROR = "mirror"
    BACKUP = "backup"
    THROTTLE = "throttle"
    LIVE_MIGRATION = "live-migration"
    TARGET_RESTART = "target-restart"
    GUEST_REBOOT = "guest-reboot"
    MULTI_QUEUE = "multi-queue"
    DISCARD = "discard"
    SHARE_DRIVE = "share-drive"
    NEEDS_IOMMU = "needs-iommu"
    NEEDS_HUGEPAGES = "needs-hugepages"
    IDLE_CPU = "idle-cpu"

    @property
    def is_cost(self) -> bool:
        return self in (Operation.NEEDS_IOMMU, Operation.NEEDS_HUGEPAGES, Operation.IDLE_CPU)


#: One line for each, for people.
MEANING: Mapping[Operation, str] = {
    Operation.HOT_PLUG: "plug it into a running machine",
    Operation.HOT_UNPLUG: "take it out of a running machine",
    Operation.RESIZE: "make it larger under a running guest, and the guest sees it",
    Operation.SNAPSHOT: "freeze a point in time from outside the guest",
    Operation.MIRROR: "copy it to another place while the guest writes",
    Operation.BACKUP: "copy a point in time while the guest writes",
    Operation.THROTTLE: "limit I/O per second from outside the guest",
    Operation.LIVE_MIGRATION: "move the running machine to another QEMU",
    Operation.TARGET_RESTART: "replace the program that serves it under a running guest",
    Operation.GUEST_REBOOT: "the guest reboots and finds it again",
    Operation.MULTI_QUEUE: "one queue for each vCPU",
    Operation.DISCARD: "the guest can say which blocks it no longer needs",
    Operation.SHARE_DRIVE: "several machines have a part of one drive each",
    Operation.NEEDS_IOMMU: "cost: the host must have an IOMMU",
    Operation.NEEDS_HUGEPAGES: "cost: the host must have hugepages",
    Operation.IDLE_CPU: "cost: it takes host CPU while the guest does nothing",
}


class Answer(StrEnum):
    """MOOT: there is nothing that could be asked so of this way. UNPROVEN: no test has shown it either way."""

    YES = "yes"
    NO = "no"
    IF = "with a condition"
    MOOT = "does not apply"
    UNPROVEN = "not proven"


class Gives(StrEnum):
    """What the guest gets."""

    VIRTIO = "a virtio disk"
    NVME = "an NVMe controller"
    MEMORY = "persistent memory"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One answer, one sentence why, and the tests that show it."""

    answer: Answer
    why: str
    evidence: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.answer is Answer.UNPROVEN) is bool(self.evidence):
            raise Bug(f"a cell has evidence, or says that there is none: {self.why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A lane in one of its kinds: a row of the matrix. `order` is its place under dense I/O on real hardware, 1 the
    fastest, None where no order is known; `takes_drive` when a whole drive leaves the host for one machine."""

    name: str
    short: str
    kind: LaneKind
    title: str
    gives: Gives
    order: int | None = None
    takes_drive: bool = False


Cells = Mapping[Operation, Cell]


def yes(why: str, *evidence: str) -> Cell:
    return Cell(answer=Answer.YES, why=why, evidence=evidence)


def no(why: str, *evidence: str) -> Cell:
    return Cell(answer=Answer.NO, why=why, evidence=evidence)


def when(why: str, *evidence: str) -> Cell:
    return Cell(answer=Answer.IF, why=why, evidence=evidence)


def moot(why: str, *evidence: str) -> Cell:
    return Cell(answer=Answer.MOOT, why=why, evidence=evidence)


def unproven(why: str) -> Cell:
    return Cell(answer=Answer.UNPROVEN, why=why)
