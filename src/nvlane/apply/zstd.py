"""Unpacking Zstandard with the system's libzstd: Python has a module of its own only from 3.14 on.

Debian's dpkg needs libzstd, so it is on every Debian; kernels and their modules come packed with it.
"""

from __future__ import annotations

import ctypes

from nvlane.model.errors import HostError

MAGIC = b"\x28\xb5\x2f\xfd"
LIBRARY = "libzstd.so.1"


def decompress(packed: bytes, most: int) -> bytes:
    """Unpack one frame of at most `most` bytes. Raises HostError for damaged data and where there is no libzstd."""
    library = _library()
    room = ctypes.create_string_buffer(most)
    length = library.ZSTD_decompress(room, most, packed, len(packed))
    if library.ZSTD_isError(length):
        raise HostError(f"Zstandard data cannot be unpacked: {library.ZSTD_getErrorName(length).decode()}")
    return ctypes.string_at(room, length)


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise HostError(f"{LIBRARY} is not on this host", remedy="install libzstd (Debian: libzstd1)") from error
    # The signatures of zstd.h.
    library.ZSTD_decompress.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)
    library.ZSTD_decompress.restype = ctypes.c_size_t
    library.ZSTD_isError.argtypes = (ctypes.c_size_t,)
    library.ZSTD_isError.restype = ctypes.c_uint
    library.ZSTD_getErrorName.argtypes = (ctypes.c_size_t,)
    library.ZSTD_getErrorName.restype = ctypes.c_char_p
    return library
