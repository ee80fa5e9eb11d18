"""The lab's drives as values, and the content each one starts with."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from nvlane.apply import process

MIB = 1 << 20
GIB = 1 << 30
PATTERN_BYTES = MIB
"""How much known content stands at the start and at the end of a blank namespace, and in an ext4 drive's file."""


class Content(StrEnum):
    """What a namespace holds when the lab starts."""

    PATTERN = "pattern"
    EXT4 = "ext4"


class Place(StrEnum):
    """Where on the virtual board a controller sits."""

    ROOT_PORT = "root port of its own"
    SIBLINGS = "one slot for several controllers"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabNamespace:
    """One namespace: its size and the size of its blocks, both in bytes."""

    size: int
    block: int = 512
    content: Content = Content.PATTERN


@dataclass(frozen=True, slots=True, kw_only=True)
class LabDrive:
    """One NVMe controller. On a root port of its own it can be pulled while the lab runs (`device_del`)."""

    serial: str
    namespaces: tuple[LabNamespace, ...]
    purpose: str
    place: Place = Place.ROOT_PORT
    node: int = 0
    virtual_functions: int = 0

    @property
    def id(self) -> str:
        """Its QEMU id, for `device_del` on the lab's monitor."""
        return self.serial.lower()

    def image(self, nsid: int) -> str:
        """File name of the image behind namespace `nsid` (1 is the first)."""
        return f"{self.id}-{nsid}.img"


def _ext4(size: int) -> tuple[LabNamespace, ...]:
    return (LabNamespace(size=size, content=Content.EXT4),)


DRIVES = (
    LabDrive(serial="LABDRIVE1", namespaces=_ext4(GIB), purpose="free; holds somebody's ext4 file system"),
    LabDrive(
        serial="LABDRIVE2",
        namespaces=(LabNamespace(size=GIB, block=4096), LabNamespace(size=512 * MIB, block=4096)),
        purpose="free; two namespaces with blocks of 4096 bytes",
        node=1,
    ),
    LabDrive(serial="LABMOUNT", namespaces=_ext4(512 * MIB), purpose="in use: mounted at /srv/mounted"),
    LabDrive(
        serial="LABSIBA",
        namespaces=(LabNamespace(size=512 * MIB),),
        purpose="free; shares an IOMMU group with LABSIBB",
        place=Place.SIBLINGS,
    ),
    LabDrive(
        serial="LABSIBB",
        namespaces=_ext4(512 * MIB),
        purpose="in use: mounted at /srv/sibling; shares an IOMMU group with LABSIBA",
        place=Place.SIBLINGS,
    ),
    LabDrive(
        serial="LABVF",
        namespaces=(LabNamespace(size=512 * MIB),),
        purpose="free; has two virtual functions (SR-IOV)",
        virtual_functions=2,
    ),
    LabDrive(
        serial="LABSPARE",
        namespaces=(LabNamespace(size=512 * MIB),),
        purpose="free; a place for md, LVM, dm-crypt, bcache, btrfs and swap",
    ),
)


def pattern(serial: str, nsid: int) -> bytes:
    """The PATTERN_BYTES bytes that belong to this namespace: SHAKE-256 of 'serial/nsid'."""
    return hashlib.shake_256(f"{serial}/{nsid}".encode()).digest(PATTERN_BYTES)


def make_images(drive: LabDrive, directory: Path) -> None:
    """Create the drive's images in `directory`, sparse, with their known content."""
    for nsid, namespace in enumerate(drive.namespaces, start=1):
        image = directory / drive.image(nsid)
        with image.open("wb") as file:
            file.truncate(namespace.size)
            if namespace.content is Content.PATTERN:
                file.write(pattern(drive.serial, nsid))
                file.seek(namespace.size - PATTERN_BYTES)
                file.write(pattern(drive.serial, nsid))
        if namespace.content is Content.EXT4:
            _make_ext4(image, drive, nsid)


def _make_ext4(image: Path, drive: LabDrive, nsid: int) -> None:
    with tempfile.TemporaryDirectory(prefix="nvlane-") as content:
        (Path(content) / "README").write_text(f"This is {drive.serial}: {drive.purpose}.\n")
        (Path(content) / "pattern.bin").write_bytes(pattern(drive.serial, nsid))
        process.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", drive.serial, "-d", content, str(image)])
