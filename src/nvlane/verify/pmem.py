"""The check for persistent memory: region, namespace mode, DAX mount, and what libpmem says of a file there."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from nvlane.model.claim import Evidence, PmemClaim
from nvlane.model.errors import WireError
from nvlane.qemu import inspect
from nvlane.verify.look import DEVICE_DEADLINE, Look, NotInGuest, evidence

#: Bytes of the file that libpmem maps, and its name on the DAX mount.
SAMPLE = 4 << 20
SAMPLE_NAME = "nvlane-pmem-check"
#: What is looked at of a namespace, in bytes, before it is made anew, and its SHA-256 when it is blank.
FRONT = 1 << 20
BLANK = hashlib.sha256(bytes(FRONT)).hexdigest()
#: Seconds for ndctl and mkfs, which write a page map over the whole region under an emulated processor.
PREPARE_DEADLINE = 300.0


def pmem(claim: PmemClaim, look: Look) -> list[Evidence]:
    """The region that this memory device became, and, where the spec asked for it, fsdax, file system and libpmem."""
    region = _region(claim, look)
    seen = [evidence(claim.lane, f"{region['name']} bytes", claim.size, region["size_bytes"])]
    if claim.mode != "fsdax":
        return seen
    namespace = _fsdax(region, look)
    seen.append(evidence(claim.lane, f"{namespace['name']} mode", "fsdax", namespace["mode"]))
    if claim.filesystem:
        seen += _dax_mount(claim, str(namespace["blockdev"]), look)
    return seen


def _region(claim: PmemClaim, look: Look) -> Mapping[str, Any]:
    """By its physical address, which QEMU gives and the kernel shows."""
    device = next((d for d in inspect.memory_devices(look.monitor) if d.id == claim.device_id), None)
    if device is None:
        raise NotInGuest(f"QEMU lists no memory device '{claim.device_id}'")
    return look.one("nvdimm.regions", lambda r: r["resource"] == device.address, deadline=DEVICE_DEADLINE)


def _fsdax(region: Mapping[str, Any], look: Look) -> Mapping[str, Any]:
    """The namespace of a region in fsdax mode. One that is fsdax already keeps its content; a blank raw one is made
    fsdax, which the spec's `mode = "fsdax"` asks for; anything else holds something, which that would erase."""

    def of_region(namespace: Mapping[str, Any]) -> bool:
        return bool(namespace["region"] == region["name"])

    def is_probed(namespace: Mapping[str, Any]) -> bool:
        # The disk of a raw namespace comes after the namespace: its page map takes the kernel a moment.
        return of_region(namespace) and (namespace["mode"] != "raw" or bool(namespace["blockdev"]))

    namespace = look.one("nvdimm.namespaces", is_probed, deadline=DEVICE_DEADLINE)
    if namespace["mode"] != "fsdax":
        _must_be_blank(namespace, look)
        look.guest.call("nvdimm_create", deadline=PREPARE_DEADLINE, namespace=namespace["name"], mode="fsdax")
        look.forget()
    return look.one("nvdimm.namespaces", lambda n: of_region(n) and bool(n["blockdev"]), deadline=DEVICE_DEADLINE)


def _must_be_blank(namespace: Mapping[str, Any], look: Look) -> None:
    name, mode = namespace["name"], namespace["mode"]
    blank = False
    if mode == "raw" and namespace["blockdev"]:
        device = f"/dev/{namespace['blockdev']}"
        blank = look.guest.call("digest", device=device, ranges=[[0, FRONT]])["sha256"] == BLANK
    if not blank:
        raise WireError(
            f"{name} is in {mode} mode and holds something: making it fsdax would erase that, so it was left alone",
            remedy=f"if it may go, in the guest: ndctl create-namespace -fe {name} -m fsdax; else leave mode out",
        )


def _dax_mount(claim: PmemClaim, blockdev: str, look: Look) -> list[Evidence]:
    device, place = f"/dev/{blockdev}", claim.mountpoint
    arguments: dict[str, Any] = {"device": device, "fstype": claim.filesystem, "mountpoint": place}
    if not look.mounted(place):
        mounted = look.guest.call("dax_mount", deadline=PREPARE_DEADLINE, **arguments)
        seen = [evidence(claim.lane, f"{place} is DAX", True, mounted["dax"])]
    else:
        seen = []
    sample = f"{place}/{SAMPLE_NAME}"
    seed = secrets.randbits(63)
    checked = look.guest.call("pmem_check", deadline=60.0, path=sample, length=SAMPLE, write=True, seed=seed)
    seen.append(evidence(claim.lane, f"pmem_is_pmem of a file on {place}", claim.is_pmem, checked["is_pmem"]))
    persisted = "pmem_persist" if claim.is_pmem else "pmem_msync"
    seen.append(evidence(claim.lane, "a pattern was persisted by", persisted, checked["persisted_by"]))
    seen.append(evidence(claim.lane, "and read back", True, checked["read_back"]))
    return seen
