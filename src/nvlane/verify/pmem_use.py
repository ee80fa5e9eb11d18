"""What a namespace of persistent memory can do: its addresses, its disk, its file system, and libpmem's word on it."""

from __future__ import annotations

import secrets
from typing import Any

from nvlane.model.claim import Evidence, PmemNamespaceClaim
from nvlane.verify.look import Look, evidence
from nvlane.verify.pmem_namespace import PREPARE_DEADLINE, Namespace

#: Bytes of the file that libpmem maps, and its name on the DAX mount.
SAMPLE = 4 << 20
SAMPLE_NAME = "nvlane-pmem-check"
#: Where a sector namespace that is a proof's gets its pattern, and how long: past a file system's superblocks.
_SECTORS = (1 << 20, 1 << 20)
_DEADLINE = 120.0


def look_at(claim: PmemNamespaceClaim, found: Namespace, lane: int, look: Look) -> list[Evidence]:
    """Everything that is claimed of one namespace."""
    name, entry = found.name, found.entry
    usable, size = entry["usable_bytes"] or 0, entry["size_bytes"] or 0
    seen = [
        Evidence(
            lane=lane,
            claim=f"{name} mode",
            expected=claim.mode or "left to the guest",
            found=str(entry["mode"]),
            ok=claim.mode in ("", entry["mode"]),
        ),
        Evidence(
            lane=lane,
            claim=f"{name} addressable bytes",
            expected=f"of {claim.size or size}",
            found=str(usable),
            ok=0 < usable <= size and claim.size in (0, size),
        ),
    ]
    if claim.dax is not None:
        seen.append(evidence(lane, f"{name} has DAX", claim.dax, entry["dax"]))
    if claim.align:
        seen.append(evidence(lane, f"{name} alignment", claim.align, entry["align"]))
    if claim.sector_size:
        seen.append(evidence(lane, f"{name} sector bytes", claim.sector_size, entry["sector_size"]))
    match claim.mode:
        case "devdax":
            seen += _libpmem(claim, found.device, lane, look, write=_may_write(claim, found, look))
        case "sector" if _may_write(claim, found, look) and not claim.filesystem:
            seen += _sectors(found, lane, look)
        case _:
            pass
    if claim.filesystem:
        seen += _mounted(claim, found, lane, look)
    return seen


def _may_write(claim: PmemNamespaceClaim, found: Namespace, look: Look) -> bool:
    """What is blank holds nothing to lose; else the spec must have allowed it."""
    return look.write and (found.is_new or claim.write)


def _sectors(found: Namespace, lane: int, look: Look) -> list[Evidence]:
    offset, length = _SECTORS
    seed = secrets.randbits(63)
    answer = look.guest.call(
        "write_pattern", deadline=_DEADLINE, device=found.device, offset=offset, length=length, seed=seed
    )
    return [evidence(lane, f"{found.device} reads back what was written", answer["sha256"], answer["read_back"])]


def _mounted(claim: PmemNamespaceClaim, found: Namespace, lane: int, look: Look) -> list[Evidence]:
    place, with_dax = claim.mountpoint, bool(claim.dax)
    is_mounted = look.mounted(place)
    if not look.write:
        # All the rest makes files.
        return [evidence(lane, f"{place} is mounted", True, is_mounted)]
    seen = []
    if not is_mounted:
        arguments: dict[str, Any] = {"device": found.device, "fstype": claim.filesystem, "mountpoint": place}
        mounted = look.guest.call("dax_mount", deadline=PREPARE_DEADLINE, dax=with_dax, **arguments)
        seen.append(evidence(lane, f"{place} is DAX", with_dax, mounted["dax"]))
    sample = f"{place}/{SAMPLE_NAME}"
    sync = look.guest.call("map_sync", path=f"{sample}-sync")
    seen.append(evidence(lane, f"MAP_SYNC of a file on {place}", bool(claim.is_pmem), sync["works"]))
    return seen + _libpmem(claim, sample, lane, look, write=True)


def _libpmem(claim: PmemNamespaceClaim, path: str, lane: int, look: Look, *, write: bool) -> list[Evidence]:
    """What PMDK's libpmem says of a mapping, and a pattern stored through it and made durable by the call that fits."""
    seed = secrets.randbits(63)
    checked = look.guest.call("pmem_check", deadline=_DEADLINE, path=path, length=SAMPLE, write=write, seed=seed)
    is_pmem = bool(claim.is_pmem)
    seen = [evidence(lane, f"pmem_is_pmem of {path}", is_pmem, checked["is_pmem"])]
    if write:
        by = "pmem_persist" if is_pmem else "pmem_msync"
        seen.append(evidence(lane, f"a pattern in {path} was persisted by", by, checked["persisted_by"]))
        seen.append(evidence(lane, f"the pattern in {path} was read back", True, checked["read_back"]))
    return seen
