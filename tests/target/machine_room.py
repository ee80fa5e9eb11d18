"""The machine of the guest tests: one target, one guest, and a disk of every kind in it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guest import Disk, Guest
from target_process import Target

MIB = 1 << 20
SIZE = 320 * MIB
"""mkfs.xfs makes nothing smaller than 300 MiB; the files are sparse."""

KINDS = {
    "blk-split": Disk(name="blk-split", socket=Path(), frontend="blk"),
    "blk-packed": Disk(name="blk-packed", socket=Path(), frontend="blk", packed=True),
    "scsi-split": Disk(name="scsi-split", socket=Path(), frontend="scsi"),
    "scsi-packed": Disk(name="scsi-packed", socket=Path(), frontend="scsi", packed=True),
}


@dataclass(frozen=True, kw_only=True)
class Room:
    """A target and a guest that runs on it."""

    target: Target
    guest: Guest

    def file(self, kind: str) -> Path:
        """What a disk lies on."""
        return self.target.directory / f"{kind}.img"

    def used(self, kind: str) -> int:
        """The bytes that the file really takes."""
        return self.file(kind).stat().st_blocks * 512

    def digest(self, kind: str, length: int) -> str:
        """Of the file's first bytes, as the host reads them."""
        with self.file(kind).open("rb") as file:
            return hashlib.sha256(file.read(length)).hexdigest()

    def guest_digest(self, kind: str, length: int) -> str:
        """Of the disk's first bytes, as the guest reads them past its cache."""
        node = self.guest.block(kind)
        script = f"dd if={node} bs=1M count={length // MIB} iflag=direct status=none | sha256sum"
        return self.guest.shell(script).split()[0]


def create(target: Target, kind: str, *, size: int = SIZE, read_only: bool = False) -> None:
    """A file, a bdev on it by one of the two drivers, and a controller of that kind."""
    path = target.directory / f"{kind}.img"
    with path.open("wb") as file:
        file.truncate(size)
    if kind.endswith("packed"):
        target.call("bdev_uring_create", name=f"{kind}.0", filename=str(path), block_size=512)
    else:
        target.call("bdev_aio_create", name=f"{kind}.0", filename=str(path), block_size=512, readonly=read_only)
    if kind.startswith("blk"):
        packed = kind.endswith("packed")
        target.call("vhost_create_blk_controller", ctrlr=kind, dev_name=f"{kind}.0", packed_ring=packed)
    else:
        target.call("vhost_create_scsi_controller", ctrlr=kind)
        target.call("vhost_scsi_controller_add_target", ctrlr=kind, scsi_target_num=0, bdev_name=f"{kind}.0")


@contextmanager
def room(
    directory: Path, kinds: tuple[str, ...] = tuple(KINDS), *options: str, tools: Path | None = None
) -> Iterator[Room]:
    """Everything started; everything ended."""
    with Target(directory, *options) as target:
        for kind in kinds:
            create(target, kind)
        disks = [
            Disk(name=kind, socket=target.socket(kind), frontend=KINDS[kind].frontend, packed=KINDS[kind].packed)
            for kind in kinds
        ]
        with Guest(directory, disks, tools=tools) as guest:
            guest.listen_from_now()
            yield Room(target=target, guest=guest)
