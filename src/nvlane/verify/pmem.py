"""The check for persistent memory: the region, what its backing keeps, and the namespaces in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nvlane.model.claim import Evidence, Keeps, PmemClaim, PmemNamespaceClaim
from nvlane.model.errors import WireError
from nvlane.qemu import inspect
from nvlane.qemu.inspect import MemoryDevice
from nvlane.verify.backing import kept
from nvlane.verify.look import DEVICE_DEADLINE, Look, NotInGuest, evidence
from nvlane.verify.pmem_namespace import find_or_make, label_if_new
from nvlane.verify.pmem_use import look_at


def pmem(claim: PmemClaim, look: Look) -> list[Evidence]:
    """The region that this memory device became, and, where the spec asked for them, its namespaces and their use."""
    device = next((d for d in inspect.memory_devices(look.monitor) if d.id == claim.device_id), None)
    if device is None:
        raise NotInGuest(f"QEMU lists no memory device '{claim.device_id}'")
    region = _region(device, look)
    name, lane = region["name"], claim.lane
    seen = [
        evidence(lane, f"{name} bytes", claim.size, region["size_bytes"]),
        evidence(lane, f"{name} read-only", claim.read_only, region["read_only"]),
    ]
    if claim.node is not None:
        seen.append(evidence(lane, f"{name} NUMA node", claim.node, region["numa_node"]))
    if claim.keeps is not None:
        seen.append(_keeps(claim, claim.keeps, device, str(name), look))
    if any(wanted.name for wanted in claim.namespaces):
        label_if_new(region, look)
    for wanted in claim.namespaces:
        seen += _namespace(wanted, region, lane, look)
    return seen


def _keeps(claim: PmemClaim, keeps: Keeps, device: MemoryDevice, region: str, look: Look) -> Evidence:
    what = f"the backing of {region} keeps"
    try:
        return evidence(claim.lane, what, str(keeps), str(kept(look.monitor, device, claim.path)))
    except WireError as error:
        return Evidence(lane=claim.lane, claim=what, expected=str(keeps), found=str(error), ok=False)


def _namespace(claim: PmemNamespaceClaim, region: Mapping[str, Any], lane: int, look: Look) -> list[Evidence]:
    """What cannot be looked up here takes nothing from what was seen of the region and of its other namespaces."""
    try:
        found = find_or_make(claim, region, look)
        return look_at(claim, found, lane, look) if found is not None else []
    except WireError as error:
        name = f"namespace {claim.name}" if claim.name else f"the namespace of {region['name']}"
        return [Evidence(lane=lane, claim=name, expected="to be as claimed", found=str(error), ok=False)]


def _region(device: MemoryDevice, look: Look) -> Mapping[str, Any]:
    """By its physical address, which QEMU gives and the kernel shows."""
    return look.one("nvdimm.regions", lambda r: r["resource"] == device.address, deadline=DEVICE_DEADLINE)
