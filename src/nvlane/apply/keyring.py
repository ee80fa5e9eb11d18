"""The kernel's keyrings by their system calls, for libkeyutils need not be there (keyctl(2), add_key(2)).

What may be done with a key depends on who possesses it, and a keyring is possessed through one of the process's own: so
the one that is asked about is linked into the process keyring first, which ends with this process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from pathlib import Path
from typing import Final

#: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h: add_key, keyctl.
_CALLS: Final = {"x86_64": (248, 250), "aarch64": (217, 219)}
#: include/uapi/linux/keyctl.h
_SETPERM, _LINK, _UNLINK, _SEARCH = 5, 8, 9, 10
_PROCESS_KEYRING: Final = -2
_SPECIAL: Final = {"@u": -4}
#: Everything for who possesses it; for its owner, root, seeing, reading and finding: tlshd reads a key by its number.
_PERMISSIONS: Final = 0x3F0B0000
_NO_KEY: Final = (errno.ENOKEY, errno.EKEYREVOKED, errno.EKEYEXPIRED)


def find_key(keyring: str, kind: str, description: str) -> int:
    """The number of a key in this keyring; 0 where the key or the keyring is not there."""
    try:
        _keyctl(_LINK, ring := _serial(keyring), _PROCESS_KEYRING)
        return _keyctl(_SEARCH, ring, kind.encode(), description.encode(), 0)
    except OSError as error:
        if error.errno not in _NO_KEY:
            raise
        return 0


def add_key(keyring: str, kind: str, description: str, payload: bytes) -> None:
    """Add a key, or give the one of this description that payload."""
    _keyctl(_LINK, ring := _serial(keyring), _PROCESS_KEYRING)
    number = _call(0, kind.encode(), description.encode(), payload, len(payload), ring)
    _keyctl(_SETPERM, number, _PERMISSIONS)


def unlink_key(keyring: str, number: int) -> None:
    """Take a key out; it is gone when nothing holds it any more."""
    _keyctl(_UNLINK, number, _serial(keyring))


def _serial(keyring: str) -> int:
    """The number of a keyring: one of the process's ('@u'), or one of the kernel's own, which have names with a dot."""
    if keyring in _SPECIAL:
        return _SPECIAL[keyring]
    line = re.compile(rf"^([0-9a-f]{{8}}) .* keyring +{re.escape(keyring)}:", re.MULTILINE)
    if (found := line.search(Path("/proc/keys").read_text())) is None:
        raise OSError(errno.ENOKEY, os.strerror(errno.ENOKEY), keyring)
    return int(found[1], 16)


def _keyctl(operation: int, *arguments: int | bytes) -> int:
    return _call(1, operation, *arguments)


def _call(which: int, *arguments: int | bytes) -> int:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), "keyctl")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    words = [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result: int = libc.syscall(ctypes.c_long(calls[which]), *words)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), ("add_key", "keyctl")[which])
    return result
