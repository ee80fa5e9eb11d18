"""A GUID partition table with one partition, written in place: the lab's root needs no more, and no tool.

Layout by the UEFI specification 2.10, section 5: protective MBR in block 0, header in block 1, 128 entries of
128 bytes in blocks 2 to 33, and the copy of both at the end.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from uuid import UUID

BLOCK = 512
FIRST_BYTE = 1 << 20
"""Where the partition starts, in bytes."""
TAIL_BYTES = 1 << 20
"""Room left behind the partition for the copy of the table."""

_ENTRIES = 128
_ENTRY_BYTES = 128
_LINUX_DATA = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")


def write_table(image: Path, *, disk: UUID, partition: UUID) -> None:
    """Describe `image`, whose partition already stands at FIRST_BYTE and ends TAIL_BYTES before its end."""
    blocks = image.stat().st_size // BLOCK
    last = blocks - 1
    entry_blocks = _ENTRIES * _ENTRY_BYTES // BLOCK
    first_usable, last_usable = 2 + entry_blocks, last - 1 - entry_blocks
    start, end = FIRST_BYTE // BLOCK, (image.stat().st_size - TAIL_BYTES) // BLOCK - 1
    entry = struct.pack("<16s16sQQQ72s", _LINUX_DATA.bytes_le, partition.bytes_le, start, end, 0, b"")
    entries = entry.ljust(_ENTRIES * _ENTRY_BYTES, b"\0")

    def header(own: int, other: int, table: int) -> bytes:
        def fields(crc: int) -> bytes:
            return struct.pack(
                "<8sIIIIQQQQ16sQIII",
                b"EFI PART", 0x10000, 92, crc, 0, own, other, first_usable, last_usable,
                disk.bytes_le, table, _ENTRIES, _ENTRY_BYTES, zlib.crc32(entries),
            )  # fmt: skip

        return fields(zlib.crc32(fields(0))).ljust(BLOCK, b"\0")

    mbr = struct.pack("<446xB3sB3sII48xH", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF), 0xAA55)
    with image.open("r+b") as file:
        file.write(mbr + header(1, last, 2) + entries)
        file.seek((last_usable + 1) * BLOCK)
        file.write(entries + header(last, 1, last_usable + 1))
