"""Files with keys: one line, mode 0600. A key is never shown: errors name the file only."""

from __future__ import annotations

import re
from typing import Final

from nvlane.model.errors import HostError, Refused
from nvlane.model.host import HostReader
from nvlane.model.tls_psk import TlsPsk, tls_psk

#: A key in the form of the NVMe TLS and DH-HMAC-CHAP commands (NVMe Base Specification 2.0, 8.13.5.8).
_SECRET: Final = re.compile(r"DHHC-1:0[0-3]:[A-Za-z0-9+/=]+:")
_OTHERS_MAY_READ: Final = 0o077


def read_secret(host: HostReader, path: str) -> str:
    """The DH-HMAC-CHAP key in a file."""
    maker = f"nvme gen-dhchap-key > {path} makes one"
    word = _first_word(host, path, maker)
    if not _SECRET.fullmatch(word):
        raise HostError(f"{path} holds no DH-HMAC-CHAP key (DHHC-1:00:…:)", remedy=maker)
    return word


def read_tls_psk(host: HostReader, path: str, host_nqn: str, nqn: str) -> TlsPsk:
    """The TLS key in a file, as it is for this host and subsystem."""
    maker = f"nvme gen-tls-key > {path} makes one; the same goes to both ends"
    try:
        return tls_psk(_first_word(host, path, maker), host_nqn, nqn)
    except ValueError as error:
        raise HostError(f"{path} holds no TLS key of NVMe: {error}", remedy=maker) from None


def _first_word(host: HostReader, path: str, maker: str) -> str:
    try:
        mode, words = host.stat(path).mode, host.read_text(path).split()
    except OSError as error:
        raise HostError(f"cannot read the key in {path}: {error.strerror}", remedy=maker) from error
    if mode & _OTHERS_MAY_READ:
        raise Refused(f"the key in {path} can be read by others (mode {mode:o})", remedy=f"chmod 600 {path}")
    return words[0] if words else ""
