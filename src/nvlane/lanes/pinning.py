"""Guest memory that cannot be pinned, beside a lane that pins all of it.

Whoever maps guest memory for a drive's DMA through VFIO pins every page of it, those of memory devices too. Linux pins
no page for good of a file that it writes back (mm/gup.c, writable_file_mapping_allowed, from 6.4 on). QEMU then ends,
or a target's disk is dead: both seen in the lab. QEMU's own NVMe driver, of the userspace lane, was seen to do without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from nvlane.lanes.context import Context
from nvlane.lanes.pmem import is_in_memory
from nvlane.plan.plan import Refusal
from nvlane.spec.lane import Backing, Nvdimm, Passthrough, VhostUser

_FIRST_KERNEL = (6, 4)


def refusals(contexts: Iterable[Context]) -> tuple[Refusal, ...]:
    """One for each NVDIMM lane whose file cannot be pinned, where another lane of the machine has to pin it."""
    lanes = [(at, at.spec.lanes[at.index]) for at in contexts]
    pinning = [at.place for at, lane in lanes if _pins(lane)]
    if not pinning:
        return ()
    return tuple(
        at.refuse(
            "pmem-pinned",
            f"{lane.path} lies on {at.facts.path(lane.path).filesystem}, whose pages Linux does not pin, and the drive "
            f"of {pinning[0]} has to reach all of the guest's memory by DMA",
            evidence=(f"Linux {at.facts.kernel}, mm/gup.c",),
            remedy='use backing = "dax", "memory" or "hugepages", or a file on tmpfs or hugetlbfs; or put the drive '
            "behind the userspace lane",
        )
        for at, lane in lanes
        if isinstance(lane, Nvdimm) and not _can_be_pinned(lane, at)
    )


def _pins(lane: object) -> bool:
    if isinstance(lane, VhostUser):
        return lane.drive != "" and lane.engine == "nvlane"
    return isinstance(lane, Passthrough)


def _can_be_pinned(lane: Nvdimm, at: Context) -> bool:
    if lane.backing is not Backing.FILE or lane.read_only:
        return True
    seen = at.facts.path(lane.path)
    if seen.dax or not seen.filesystem or is_in_memory(seen):
        return True
    version = re.match(r"(\d+)\.(\d+)", at.facts.kernel)
    return version is not None and (int(version[1]), int(version[2])) < _FIRST_KERNEL
