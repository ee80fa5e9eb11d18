"""What is on a device that nobody uses, by its signatures: named for people, never a reason to refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from nvlane.facts.shape import Content
from nvlane.model.errors import HostError
from nvlane.model.host import HostReader

#: Bytes at the front that are looked at when no signature is known there.
_FRONT: Final = 64 << 10


def read_contents(host: HostReader, devices: Sequence[str]) -> tuple[Content, ...]:
    """Signatures on block nodes, given by name ('nvme0n1p1'). Needs the right to read them; a device that cannot be
    read has no content here (`facts.host` tells a user who lacks it).

    One run for all devices of `wipefs --no-act` (util-linux), which opens them read only and lists every signature;
    blkid ends at the first device that has none, and says nothing of a device that has two.
    """
    if not devices:
        return ()
    argv = ("wipefs", "--no-act", "--json", "--output", "DEVICE,TYPE,LABEL,USAGE", *(f"/dev/{n}" for n in devices))
    try:
        found = parse_signatures(host.query(argv).stdout)
    except (HostError, ValueError):
        found = {}  # no util-linux, or a device that went away meanwhile: content is information, no condition
    named = ((name, found.get(name) or _unnamed(host, name)) for name in devices)
    return tuple(Content(device=name, what=what) for name, what in named if what)


def parse_signatures(text: str) -> dict[str, str]:
    """The answer of wipefs to block name -> 'ext4, label data', 'gpt partition table', or several with 'and'."""
    found: dict[str, dict[str, None]] = {}
    for signature in json.loads(text)["signatures"] if text.strip() else ():
        what = str(signature["type"])
        if what == "PMBR":
            continue  # the protective half of a GPT
        if signature["usage"] == "partition-table":
            what += " partition table"
        if signature["label"]:
            what += f", label {signature['label']}"
        found.setdefault(signature["device"].removeprefix("/dev/"), {})[what] = None  # copies count once
    return {device: " and ".join(what) for device, what in found.items()}


def _unnamed(host: HostReader, name: str) -> str:
    try:
        front = host.read_bytes(f"/dev/{name}", length=_FRONT)
    except OSError:
        return ""  # not for this user (EACCES), gone (ENXIO), or unreadable blocks (EIO): nothing to name
    return "data without a known signature" if any(front) else ""
