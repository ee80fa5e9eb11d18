"""The namespaces of a region: those that are there keep their content, and where nothing is they are made."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nvlane.model.claim import PmemNamespaceClaim
from nvlane.model.errors import WireError
from nvlane.verify.look import DEVICE_DEADLINE, Look

#: What is looked at of a namespace, in bytes, before it is made anew, and its SHA-256 when it is blank.
FRONT = 1 << 20
BLANK = hashlib.sha256(bytes(FRONT)).hexdigest()
#: Seconds for ndctl and mkfs, which write a page map over the whole region under an emulated processor.
PREPARE_DEADLINE = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """A namespace of the guest, as the probe's inventory has it, and whether it was made just now: then it is blank."""

    entry: Mapping[str, Any]
    is_new: bool

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def device(self) -> str:
        return f"/dev/{self.entry['blockdev'] or self.entry['chardev']}"


def find_or_make(claim: PmemNamespaceClaim, region: Mapping[str, Any], look: Look) -> Namespace | None:
    """The namespace that is claimed; None where nothing is claimed of it and there is none."""
    found = _find(claim, region, look)
    if not claim.mode and not claim.filesystem:
        return Namespace(entry=found, is_new=False) if found is not None else None
    if found is not None and claim.mode in ("", found["mode"]):
        return Namespace(entry=_with_device(found, look), is_new=False)
    options = {"sector_size": claim.sector_size, "align": claim.align, "size": claim.size, "name": claim.name}
    if found is None:
        options["region"] = region["name"]
    else:
        _must_be_blank(found, claim.mode, look)
        options["namespace"] = found["name"]
    _must_be_writable(region, look)
    given = {key: value for key, value in options.items() if value}
    made = look.guest.call("nvdimm_create", deadline=PREPARE_DEADLINE, mode=claim.mode, **given)
    look.forget()
    entry = look.one("nvdimm.namespaces", lambda n: bool(n["name"] == made["dev"]), deadline=DEVICE_DEADLINE)
    return Namespace(entry=_with_device(entry, look), is_new=True)


def label_if_new(region: Mapping[str, Any], look: Look) -> None:
    """An NVDIMM that was never used has one nameless namespace, all of it, which no label lists. Before there can be
    others, the label area is made, and that one goes."""
    nameless = _find(PmemNamespaceClaim(), region, look)
    if nameless is None or nameless["name_in_label"] or nameless["size_bytes"] != region["size_bytes"]:
        return
    _must_be_blank(nameless, "several namespaces", look)
    _must_be_writable(region, look)
    look.guest.call("nvdimm_label", deadline=PREPARE_DEADLINE, region=region["name"])
    look.forget()


def _find(claim: PmemNamespaceClaim, region: Mapping[str, Any], look: Look) -> Mapping[str, Any] | None:
    """By its name in the label area, or the first. The disk of a raw one comes after the namespace: its page map takes
    the kernel a moment."""

    def fitting() -> list[Mapping[str, Any]]:
        all_there = look.inventory()["nvdimm"]["namespaces"]
        return [n for n in all_there if n["region"] == region["name"] and claim.name in ("", n["name_in_label"] or "")]

    def is_probed(found: list[Mapping[str, Any]]) -> bool:
        # One with a name of its own may be still to be made; a region without any has at least a label area.
        return bool(claim.name) or bool(found and (found[0]["mode"] != "raw" or found[0]["blockdev"]))

    found = look.until(fitting, is_probed, deadline=DEVICE_DEADLINE)
    return found[0] if found else None


def _with_device(entry: Mapping[str, Any], look: Look) -> Mapping[str, Any]:
    """The namespace again, when its driver has made its disk or its DAX device."""
    return look.one(
        "nvdimm.namespaces",
        lambda n: bool(n["name"] == entry["name"] and (n["blockdev"] or n["chardev"])),
        deadline=DEVICE_DEADLINE,
    )


def _must_be_blank(namespace: Mapping[str, Any], wanted: str, look: Look) -> None:
    name, mode = namespace["name"], namespace["mode"]
    blank = False
    if mode == "raw" and namespace["blockdev"]:
        device = f"/dev/{namespace['blockdev']}"
        blank = look.guest.call("digest", device=device, ranges=[[0, FRONT]])["sha256"] == BLANK
    if not blank:
        raise WireError(
            f"{name} is in {mode} mode and holds something: making it {wanted} would erase that, so it was left alone",
            remedy=f"if it may go, in the guest: ndctl destroy-namespace -f {name}; else leave the mode out",
        )


def _must_be_writable(region: Mapping[str, Any], look: Look) -> None:
    if not look.write:
        raise WireError(
            f"a namespace that is not there is not made in {region['name']} while only looking",
            remedy="let it write: nvlane verify without --no-write",
        )
    if region["read_only"]:
        raise WireError(
            f"{region['name']} is read-only, and a namespace that is not there cannot be made in it",
            remedy="make it with a lane that may be written, or leave the mode out",
        )
