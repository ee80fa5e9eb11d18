"""What somebody wants of a lane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from nvlane.advise.cell import MEANING, Operation
from nvlane.model.size import GIB


class Need(StrEnum):
    """What can be asked for: each operation that is no cost, and what the guest gets."""

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
    NO_IOMMU = "no-iommu"
    NO_HUGEPAGES = "no-hugepages"
    NO_IDLE_CPU = "no-idle-cpu"
    NVME = "nvme"
    PERSISTENT_MEMORY = "persistent-memory"

    @property
    def operation(self) -> Operation | None:
        """The column of the matrix that answers it; None for what the guest gets."""
        return _OPERATIONS.get(self)


_COSTS: Mapping[Need, Operation] = {
    Need.NO_IOMMU: Operation.NEEDS_IOMMU,
    Need.NO_HUGEPAGES: Operation.NEEDS_HUGEPAGES,
    Need.NO_IDLE_CPU: Operation.IDLE_CPU,
}
_OPERATIONS: Mapping[Need, Operation] = {
    **{Need(str(operation)): operation for operation in Operation if not operation.is_cost},
    **_COSTS,
}


def meaning(need: Need) -> str:
    """One line for people."""
    match need:
        case Need.NO_IOMMU:
            return "works on a host without an IOMMU"
        case Need.NO_HUGEPAGES:
            return "works on a host without hugepages"
        case Need.NO_IDLE_CPU:
            return "takes no host CPU while the guest does nothing"
        case Need.NVME:
            return "the guest gets an NVMe controller, for software that speaks NVMe"
        case Need.PERSISTENT_MEMORY:
            return "the guest gets persistent memory: bytes that it loads and stores (DAX)"
        case _:
            operation = need.operation
            return MEANING[operation] if operation else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """All that is asked. `density`: so many machines on this host, each with a lane like this. `size` is that of a
    disk or of memory that is made; `directory` is where relative paths of the spec begin."""

    needs: tuple[Need, ...] = ()
    density: int = 1
    latency: bool = False
    drive: str = ""
    machine: str = "vm"
    image: str = ""
    size: int = 0
    address: str = ""
    nqn: str = ""
    directory: str = "/"

    @property
    def all_needs(self) -> tuple[Need, ...]:
        """With what follows: where machines are dense, none of them may burn a processor for nothing."""
        dense = (Need.NO_IDLE_CPU,) if self.density > 1 else ()
        return tuple(dict.fromkeys((*self.needs, *dense)))


#: What is made where nobody says how large.
DISK_SIZE = 20 * GIB
MEMORY_SIZE = GIB
