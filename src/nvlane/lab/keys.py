"""Keys for one lab: made when it starts, gone when it ends.

OpenSSH's `ssh-keygen` makes both pairs; dropbear, the server inside, wants the host key in its own format.
"""

from __future__ import annotations

import base64
import struct
from pathlib import Path

from nvlane.apply import process
from nvlane.model.errors import Bug

_MAGIC = b"openssh-key-v1\0"
_TYPE = b"ssh-ed25519"


def make_pair(path: Path, comment: str) -> str:
    """Write an Ed25519 pair to `path` and `path`.pub; the public key's line."""
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path.with_name(path.name + ".pub").read_text().strip()


def dropbear_form(private: Path) -> bytes:
    """An unencrypted OpenSSH Ed25519 private key as dropbear keeps it: the type, then seed and public key (64 bytes).

    The input is described in OpenSSH's PROTOCOL.key, the output in dropbear's src/ed25519.c, buf_put_ed25519_priv_key.
    """
    lines = private.read_text().split()
    body = base64.b64decode("".join(line for line in lines if len(line) > 20 or line.endswith("=")))
    if not body.startswith(_MAGIC):
        raise Bug(f"{private} is no OpenSSH private key")
    rest = body[len(_MAGIC) :]
    for _ in range(3):  # cipher, key derivation, its options
        _, rest = _string(rest)
    (_count,) = struct.unpack(">I", rest[:4])
    _public, rest = _string(rest[4:])
    secret, _ = _string(rest)
    kind, rest = _string(secret[8:])  # after two equal check words
    _point, rest = _string(rest)
    key, _ = _string(rest)
    if kind != _TYPE or len(key) != 64:
        raise Bug(f"{private} is no Ed25519 key")
    return _packed(_TYPE) + _packed(key)


def _string(data: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack(">I", data[:4])
    return data[4 : 4 + length], data[4 + length :]


def _packed(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data
