"""Fingerprints: content read on the host, to be compared with what the guest reads."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from nvlane.facts.shape import Drive, Fingerprint
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress
from nvlane.model.size import KIB, MIB

_FRONT: Final = 1 * MIB
_PIECE: Final = 64 * KIB
_ALIGNMENT: Final = 4096  # the largest logical block of today's drives: a guest may read with O_DIRECT


def ranges_of(size: int) -> tuple[tuple[int, int], ...]:
    """((offset, length), ...) in bytes that stand for a device of `size`: the first MiB, 64 KiB in the middle, and the
    last 64 KiB, aligned to 4096 and without overlap. A small device is read whole."""
    usable = size // _ALIGNMENT * _ALIGNMENT
    if usable <= _FRONT + 2 * _PIECE:
        return ((0, usable),) if usable else ()
    middle = max(_FRONT, usable // 2 // _ALIGNMENT * _ALIGNMENT)
    last = usable - _PIECE
    if middle + _PIECE > last:
        return ((0, _FRONT), (_FRONT, usable - _FRONT))
    return ((0, _FRONT), (middle, _PIECE), (last, _PIECE))


def read_fingerprint(host: HostReader, *, of: str, path: str, size: int) -> Fingerprint:
    """Read the ranges of a block node or raw file at `path` and hash them. Raises OSError when they cannot be read."""
    ranges = ranges_of(size)
    digest = hashlib.sha256()
    for offset, length in ranges:
        digest.update(host.read_bytes(path, offset=offset, length=length))
    return Fingerprint(of=of, ranges=ranges, sha256=digest.hexdigest())


def read_fingerprints(
    host: HostReader, wanted: Sequence[str], drives: Sequence[Drive]
) -> tuple[tuple[Fingerprint, ...], tuple[str, ...]]:
    """Fingerprints of 'ADDRESS:NSID' and of paths; and a sentence for each that could not be read. A drive that is not
    with the kernel's driver, a path with nothing at it and a file of less than a block have none, without a word."""
    found, unknown = [], []
    for of in dict.fromkeys(wanted):
        try:
            place = _place(host, of, drives)
            if place is not None and ranges_of(place[1]):
                found.append(read_fingerprint(host, of=of, path=place[0], size=place[1]))
        except OSError as error:
            unknown.append(f"no fingerprint of {of}: {error.strerror} (run as root, or see whether the drive is sound)")
    return tuple(found), tuple(unknown)


def _place(host: HostReader, of: str, drives: Sequence[Drive]) -> tuple[str, int] | None:
    """(path to read, size in bytes) of what is wanted; None when there is nothing to read now."""
    if of.startswith("/"):
        if not host.exists(of):
            return None
        found = host.stat(of)
        if found.kind == "block":
            name = host.realpath(of).rsplit("/", 1)[-1]
            return of, int(host.read_text(f"/sys/class/block/{name}/size")) * 512
        return (of, found.size) if found.kind == "file" else None
    address, _, nsid = of.rpartition(":")
    for drive in drives:
        if drive.address == PciAddress.parse(address) and drive.controller:
            for namespace in drive.namespaces:
                if str(namespace.nsid) == nsid and namespace.size:
                    return f"/dev/{namespace.name}", namespace.size
    return None
