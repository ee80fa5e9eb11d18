"""QEMU's block layer as QMP tells it: disks, jobs, limits, bitmaps; and the commands that change it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nvlane.qemu.inspect import Monitor

#: The limits of block_set_io_throttle (qapi/block-core.json, BlockIOThrottle): those that every call has to name, and
#: those that may be left out.
RATES: Final = ("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr")
BURSTS: Final = tuple(f"{rate}_max" for rate in RATES)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskNow:
    """The disk of a front end: how QEMU names that, its top block node, its size in bytes, and its limits."""

    device: str
    node: str
    size: int
    limits: Mapping[str, int]
    bitmaps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class JobNow:
    """A job: `status` as JobStatus of qapi/job.json names it; `done` of `total` in units of its own (bytes, mostly)."""

    id: str
    kind: str
    status: str
    done: int
    total: int
    error: str = ""


def disk(monitor: Monitor, frontend: str) -> DiskNow | None:
    """The disk that the front end with this id has; None where it has none."""
    found = next((entry for entry in monitor.execute("query-block") if _is_of(entry, frontend)), None)
    if found is None or "inserted" not in found:
        return None
    inserted = found["inserted"]
    names = (*RATES, *(name for name in BURSTS if name in inserted))
    return DiskNow(
        device=str(found["qdev"]),
        node=str(inserted["node-name"]),
        size=int(inserted["image"]["virtual-size"]),
        limits={name: int(inserted[name]) for name in names},
        bitmaps=tuple(str(bitmap.get("name", "")) for bitmap in inserted.get("dirty-bitmaps", ())),
    )


def _is_of(entry: Mapping[str, Any], frontend: str) -> bool:
    """A device without an id of its own (the disk inside virtio-blk-pci) is named by its path."""
    name = str(entry.get("qdev", ""))
    return name == frontend or name.startswith(f"/machine/peripheral/{frontend}/")


def jobs(monitor: Monitor) -> tuple[JobNow, ...]:
    """All jobs, those that have ended and not been dismissed too."""
    return tuple(
        JobNow(
            id=str(entry["id"]),
            kind=str(entry["type"]),
            status=str(entry["status"]),
            done=int(entry["current-progress"]),
            total=int(entry["total-progress"]),
            error=str(entry.get("error", "")),
        )
        for entry in monitor.execute("query-jobs")
    )


def nodes(monitor: Monitor) -> frozenset[str]:
    return frozenset(str(entry["node-name"]) for entry in monitor.execute("query-named-block-nodes", {"flat": True}))


def throttling(device: str, limits: Mapping[str, int]) -> Mapping[str, Any]:
    """The arguments of block_set_io_throttle. A burst of 0 is left out: it is no limit, and QEMU takes none below the
    rate."""
    rates = {name: limits.get(name, 0) for name in RATES}
    return {"id": device, **rates, **{name: limits[name] for name in BURSTS if limits.get(name)}}
