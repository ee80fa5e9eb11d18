"""Claims: what must be true inside the guest (or of its VM), and the evidence found for each.

A claim says how to find a thing and what it must be; `verify` looks. `lane` is the index of the lane in the spec.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class Locator:
    """How to find a block device in the guest: the QEMU id of its front end (its PCI address is asked of QEMU, since
    only the firmware knows the bus number), and, where that is a controller with several disks, what tells them apart:
    `nsid` on NVMe, `lun` on SCSI, `serial` for anything that has one."""

    device_id: str
    serial: str = ""
    nsid: int | None = None
    lun: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerClaim:
    """An NVMe controller with this serial, driven by the guest's nvme driver. '' or None: not claimed."""

    TAGGED: ClassVar[bool] = True
    lane: int
    device_id: str
    serial: str
    model: str = ""
    vendor: int | None = None
    device: int | None = None
    namespaces: int | None = None
    subsystem_nqn: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockClaim:
    """A block device of this size and logical block size (bytes; 0: not claimed), under this driver or bus."""

    TAGGED: ClassVar[bool] = True
    lane: int
    locator: Locator
    size: int = 0
    block_size: int = 0
    zoned: str = ""
    metadata_size: int | None = None
    read_only: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentClaim:
    """The device holds the content that the host saw: SHA-256 over byte ranges ((offset, length), ...)."""

    TAGGED: ClassVar[bool] = True
    lane: int
    locator: Locator
    ranges: tuple[tuple[int, int], ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteClaim:
    """The guest writes a pattern, drawn anew each time, at `offset`, and the host reads the same bytes after `down`.

    `host_path` is where the host reads: a file, 'serial:SERIAL:NSID' for a drive that goes back to the kernel, or
    'fabrics:NSID:NQN' for a namespace of a fabric, which is read before this host disconnects."""

    TAGGED: ClassVar[bool] = True
    lane: int
    locator: Locator
    offset: int
    length: int
    host_path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClaim:
    """The vhost-user connection is alive: QEMU shows a dead one only in `query-chardev`."""

    TAGGED: ClassVar[bool] = True
    lane: int
    chardev_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryDeviceClaim:
    """QEMU lists this memory device with this size (`query-memory-devices`)."""

    TAGGED: ClassVar[bool] = True
    lane: int
    device_id: str
    size: int


class Keeps(StrEnum):
    """What is left of what a guest wrote to persistent memory, by the device and by what it is made of."""

    FLUSHED_STORES = "every flushed store, past a power failure"
    SYNCED_WRITES = "what was synced, past a power failure"
    UNTIL_POWER_FAILS = "every store, but not past a power failure"
    NOTHING = "nothing past the machine's end"


@dataclass(frozen=True, slots=True, kw_only=True)
class PmemNamespaceClaim:
    """A namespace in this mode ('': whatever the guest has made of it), of `size` bytes with its maps (0: all of the
    region) and, in an NVDIMM with several, of this name in the label area.

    `dax`: whether programs map it with no page cache between (None: not claimed). With `filesystem` it is mounted.
    `is_pmem` is what libpmem must say of a file there, or of the DAX device. `write`: the guest may write a proof."""

    name: str = ""
    size: int = 0
    mode: str = ""
    sector_size: int = 0
    align: int = 0
    dax: bool | None = None
    filesystem: str = ""
    mountpoint: str = ""
    is_pmem: bool | None = None
    write: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PmemClaim:
    """Persistent memory in the guest: a region of `size` bytes (usable, without label) with its namespaces; on this
    guest node (None: not claimed); made of `path` ('': anonymous memory), which keeps what `keeps` says (None: nothing
    is written)."""

    TAGGED: ClassVar[bool] = True
    lane: int
    device_id: str
    size: int
    read_only: bool = False
    node: int | None = None
    path: str = ""
    keeps: Keeps | None
    namespaces: tuple[PmemNamespaceClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundClaim:
    """The device is what was bound to `path` on the host. Its size, blocks and content are known only then; before it
    is verified, this claim becomes a BlockClaim and a ContentClaim."""

    TAGGED: ClassVar[bool] = True
    lane: int
    locator: Locator
    path: str
    read_only: bool | None = None


Claim = (
    ControllerClaim | BlockClaim | ContentClaim | WriteClaim | LinkClaim | MemoryDeviceClaim | PmemClaim | BoundClaim
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One thing that was claimed, what was found, and whether they agree."""

    lane: int
    claim: str
    expected: str
    found: str
    ok: bool
