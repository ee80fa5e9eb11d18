"""TLS keys of NVMe/TCP: from the configured PSK in a file to the key and identity of a handshake.

::

    configured PSK  NVMeTLSkey-1:01:BASE64:           one for a Host and a Target, in a file on both
      │ HostNQN                                       the hash that the file names, or none
    retained PSK
      │ digest of both NQNs                           part of the identity
    TLS PSK         NVMe1R01 HOSTNQN NQN DIGEST       what stands in the kernel's keyring

NVMe/TCP Transport Specification 1.1, 3.6.1 (PSK interchange format, retained PSK, PSK identity version 1, TLS PSK), on
HKDF (RFC 5869) and HKDF-Expand-Label (RFC 8446, 7.1). The digest makes the identity name one key and no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import zlib
from dataclasses import dataclass, field
from typing import Final

#: The type of these keys, and the keyring in which tlshd looks for those of a Target (drivers/nvme/common/keyring.c).
KEY_TYPE: Final = "psk"
TARGET_KEYRING: Final = ".nvme"
#: Where a Host's are: root's own, for the connection names its key, and nobody who comes to this host has to get in.
HOST_KEYRING: Final = "@u"
_FORM: Final = re.compile(r"NVMeTLSkey-1:(0[0-2]):([A-Za-z0-9+/]+={0,2}):")
_HASHES: Final = {1: "sha256", 2: "sha384"}
_BY_LENGTH: Final = {32: 1, 48: 2}
_CRC_LENGTH: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsPsk:
    """A key as the kernel keeps it: `identity` is its description, and no secret; `key` is never shown."""

    identity: str
    key: bytes = field(repr=False)


def tls_psk(configured: str, host_nqn: str, nqn: str) -> TlsPsk:
    """The TLS PSK of a Host and a subsystem. Raises ValueError, without the key, for what is no configured PSK."""
    transform, secret = _parsed(configured)
    number = _BY_LENGTH[len(secret)]
    name = _HASHES[number]
    retained = _derived(name, secret, "HostNQN", host_nqn) if transform else secret
    context = f"{host_nqn} {nqn} NVMe-over-Fabrics"
    digest = base64.b64encode(hmac.digest(retained, context.encode(), name)).decode()
    return TlsPsk(
        identity=f"NVMe1R{number:02d} {host_nqn} {nqn} {digest}",
        key=_derived(name, retained, "nvme-tls-psk", f"{number:02d} {digest}"),
    )


def _parsed(configured: str) -> tuple[bool, bytes]:
    """Whether it is to be transformed, and the secret."""
    found = _FORM.fullmatch(configured)
    if found is None:
        raise ValueError("it has not the form NVMeTLSkey-1:01:…:")
    number = int(found[1])
    try:
        data = base64.b64decode(found[2], validate=True)
    except binascii.Error:
        raise ValueError("its middle is not base64") from None
    secret, crc = data[:-_CRC_LENGTH], data[-_CRC_LENGTH:]
    if len(secret) not in _BY_LENGTH or number not in (0, _BY_LENGTH[len(secret)]):
        raise ValueError(f"it holds {len(secret)} bytes, and not the 32 of SHA-256 (01) or the 48 of SHA-384 (02)")
    if zlib.crc32(secret).to_bytes(_CRC_LENGTH, "little") != crc:
        raise ValueError("its checksum is wrong: a part is missing or mistyped")
    return number != 0, secret


def _derived(name: str, secret: bytes, label: str, context: str) -> bytes:
    """HKDF-Extract with a salt of zeros, then HKDF-Expand-Label: as many bytes as the hash has, so one block."""
    length = hashlib.new(name).digest_size
    words = f"tls13 {label}".encode()
    info = length.to_bytes(2, "big") + bytes([len(words)]) + words + bytes([len(context)]) + context.encode()
    return hmac.digest(hmac.digest(bytes(length), secret, name), info + b"\x01", name)
