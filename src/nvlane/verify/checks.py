"""One check for each kind of claim about controllers, disks, content and links."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

from nvlane.model.claim import (
    BlockClaim,
    ContentClaim,
    ControllerClaim,
    Evidence,
    LinkClaim,
    MemoryDeviceClaim,
    WriteClaim,
)
from nvlane.qemu import inspect
from nvlane.verify.look import DEVICE_DEADLINE, Look, Proof, evidence


def controller(claim: ControllerClaim, look: Look) -> list[Evidence]:
    """The controller by its PCI function: serial, model, PCI identity, driver, and how many namespaces it has."""
    address = look.pci_address(claim.device_id)
    # Until it is live its attributes read '(efault)': they belong to a subsystem that is made last (nvme/host/core.c).
    found = look.one(
        "nvme.controllers", lambda c: c["address"] == address and c["state"] == "live", deadline=DEVICE_DEADLINE
    )
    name, lane = f"controller {found['name']}", claim.lane
    seen = [evidence(lane, f"{name} is driven by", "nvme", found["driver"])]
    if claim.serial:
        seen.append(evidence(lane, f"{name} serial", claim.serial, found["serial"]))
    if claim.model:
        seen.append(evidence(lane, f"{name} model", claim.model, found["model"]))
    if claim.vendor is not None and claim.device is not None:
        wanted = f"{claim.vendor:04x}:{claim.device:04x}"
        seen.append(evidence(lane, f"{name} PCI identity", wanted, _identity(found)))
    if claim.subsystem_nqn:
        seen.append(evidence(lane, f"{name} subsystem", claim.subsystem_nqn, found["subsysnqn"]))
    if claim.namespaces is not None:
        count = _count(look, found["name"], claim.namespaces)
        seen.append(evidence(lane, f"{name} namespaces", claim.namespaces, count))
    return seen


def _identity(found: Mapping[str, Any]) -> str:
    return f"{int(found['vendor'], 16):04x}:{int(found['device'], 16):04x}"


def _count(look: Look, controller_name: str, wanted: int) -> int:
    """Namespaces are announced one after the other: the wanted number is waited for, and what there is reported."""

    def count() -> int:
        return sum(1 for ns in look.inventory()["nvme"]["namespaces"] if controller_name in ns["controllers"])

    return look.until(count, lambda number: number >= wanted, deadline=DEVICE_DEADLINE)


def block(claim: BlockClaim, look: Look) -> list[Evidence]:
    """A disk's size, blocks, zones, metadata and writability."""
    path = look.path(claim.locator)
    found = look.one("block", lambda b: b["path"] == path, deadline=DEVICE_DEADLINE)
    lane, seen = claim.lane, list[Evidence]()
    if claim.size:
        seen.append(evidence(lane, f"{path} bytes", claim.size, found["size_bytes"]))
    if claim.block_size:
        seen.append(evidence(lane, f"{path} block bytes", claim.block_size, found["logical_block_size"]))
    if claim.read_only is not None:
        seen.append(evidence(lane, f"{path} read-only", claim.read_only, found["read_only"]))
    if claim.zoned or claim.metadata_size is not None:
        namespace = look.one("nvme.namespaces", lambda n: n["path"] == path, deadline=DEVICE_DEADLINE)
        if claim.zoned:
            seen.append(evidence(lane, f"{path} zones", claim.zoned, namespace["zoned"]))
        if claim.metadata_size is not None:
            seen.append(evidence(lane, f"{path} metadata bytes", claim.metadata_size, namespace["metadata_bytes"] or 0))
    return seen


def content(claim: ContentClaim, look: Look) -> list[Evidence]:
    """The bytes that the host read are the bytes that the guest reads."""
    path = look.path(claim.locator)
    ranges = [list(part) for part in claim.ranges]
    digest = look.guest.call("digest", deadline=120.0, device=path, ranges=ranges)["sha256"]
    total = sum(length for _, length in claim.ranges)
    return [evidence(claim.lane, f"{path} content, SHA-256 of {total} bytes", claim.sha256, digest)]


def write(claim: WriteClaim, look: Look) -> list[Evidence]:
    """A pattern, drawn now, goes to the device and is read back; the host's half comes after `down`."""
    if not look.write:
        return []
    path = look.path(claim.locator)
    answer = look.guest.call(
        "write_pattern",
        deadline=120.0,
        device=path,
        offset=claim.offset,
        length=claim.length,
        seed=secrets.randbits(63),
    )
    sha256 = str(answer["sha256"])
    look.proofs.append(
        Proof(lane=claim.lane, host_path=claim.host_path, offset=claim.offset, length=claim.length, sha256=sha256)
    )
    return [evidence(claim.lane, f"{path} reads back what the guest wrote", sha256, answer["read_back"])]


def link(claim: LinkClaim, look: Look) -> list[Evidence]:
    """The vhost-user socket has its peer."""
    state = {c.id: "connected" if c.connected else "disconnected" for c in inspect.chardevs(look.monitor)}
    return [evidence(claim.lane, "vhost-user link", "connected", state.get(claim.chardev_id, "absent"))]


def memory_device(claim: MemoryDeviceClaim, look: Look) -> list[Evidence]:
    """QEMU lists the memory device with the claimed size."""
    sizes = {device.id: device.size for device in inspect.memory_devices(look.monitor)}
    return [evidence(claim.lane, f"memory device {claim.device_id} bytes", claim.size, sizes.get(claim.device_id))]
