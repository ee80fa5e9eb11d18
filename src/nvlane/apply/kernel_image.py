"""The kernel inside a bzImage, for a start without its decompression.

A bzImage unpacks itself in the guest, which costs a second and more where processors are emulated. QEMU also starts
an uncompressed x86-64 kernel directly when that has a PVH entry (CONFIG_PVH; hw/i386/x86.c, load_elfboot), so the
unpacking is done here, once.

Sources: Documentation/arch/x86/boot.rst of the kernel (setup_sects, payload_offset, payload_length);
include/xen/interface/elfnote.h (XEN_ELFNOTE_PHYS32_ENTRY).
"""

from __future__ import annotations

import lzma
import struct
import zlib

from nvlane.apply import zstd
from nvlane.model.errors import HostError

PHYS32_ENTRY = 18
"""The type of the ELF note, of the name Xen, that holds the PVH entry."""
PROGRAM_NOTE = 4


def uncompressed(bzimage: bytes) -> bytes | None:
    """The ELF kernel in a bzImage, if QEMU can start it directly; `None` when it cannot, or cannot be unpacked."""
    payload = _payload(bzimage)
    if payload is None:
        return None
    try:
        kernel = _unpack(payload)
    except (HostError, lzma.LZMAError, zlib.error, EOFError):
        # Not worth a word: the bzImage itself boots too, only later.
        return None
    return kernel if kernel is not None and has_pvh_entry(kernel) else None


def _payload(bzimage: bytes) -> bytes | None:
    if len(bzimage) < 0x250 or bzimage[0x202:0x206] != b"HdrS":
        # The header's magic is at 0x202 from protocol 2.00 on.
        return None
    sectors = bzimage[0x1F1] or 4
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = (sectors + 1) * 512 + offset
    payload = bzimage[start : start + length]
    return payload if length and len(payload) == length else None


def _unpack(payload: bytes) -> bytes | None:
    # The build appends the unpacked size to what the packer made (scripts/Makefile.lib, size_append).
    (size,) = struct.unpack("<I", payload[-4:])
    if payload.startswith(zstd.MAGIC):
        return zstd.decompress(payload[:-4], size)
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(wbits=31).decompress(payload)
    return None


def has_pvh_entry(kernel: bytes) -> bool:
    """Whether an ELF file is a 64-bit kernel with a PVH entry."""
    if kernel[:6] != b"\x7fELF\x02\x01":
        return False
    (table,) = struct.unpack_from("<Q", kernel, 32)
    size, count = struct.unpack_from("<HH", kernel, 54)
    for number in range(count):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", kernel, table + number * size)
        if kind == PROGRAM_NOTE and _has_note(kernel[offset : offset + length]):
            return True
    return False


def _has_note(notes: bytes) -> bool:
    at = 0
    while at + 12 <= len(notes):
        name_size, content_size, kind = struct.unpack_from("<III", notes, at)
        if kind == PHYS32_ENTRY and notes[at + 12 : at + 16] == b"Xen\0":
            return True
        at += 12 + (name_size + 3) // 4 * 4 + (content_size + 3) // 4 * 4
    return False
