"""What is on a device that nobody uses, by its signatures: named for people, never a reason to refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nvlane.facts.shape import Content
from nvlane.model.errors import HostError
from nvlane.model.host import HostReader

#: Bytes at the front that are looked at when no signature is known there.
_FRONT: Final = 64 << 10


def read_contents(host: HostReader, devices: Sequence[str]) -> tuple[Content, ...]:
    """Signatures on block nodes, given by name ('nvme0n1p1'). Needs the right to read them; a device that cannot be
    read has no content here (`facts.host` tells a user who lacks it)."""
    if not devices:
        return ()
    try:
        output = host.query(["blkid", "-p", "-o", "export", *(f"/dev/{name}" for name in devices)])
    except HostError:
        # Without blkid (util-linux) nothing can be named: content is information, no condition.
        return ()
    found = parse_export(output.stdout)
    ambivalent = {name for name in devices if f"/dev/{name}: ambivalent result" in output.stderr}
    contents = []
    for name in devices:
        if what := found.get(name):
            contents.append(Content(device=name, what=what))
        elif name in ambivalent:
            contents.append(Content(device=name, what="several signatures at once (see wipefs)"))
        elif _has_data(host, name):
            contents.append(Content(device=name, what="data without a known signature"))
    return tuple(contents)


def parse_export(text: str) -> dict[str, str]:
    """The output of `blkid -p -o export`: blocks of KEY=value with a blank line between, to name -> what is there."""
    found = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        name = values.get("DEVNAME", "").removeprefix("/dev/")
        if name and (what := describe(values)):
            found[name] = what
    return found


def describe(values: dict[str, str]) -> str:
    """'ext4, label data' or 'gpt partition table' of one block, '' when it tells of nothing on the device."""
    parts = []
    if kind := values.get("TYPE"):
        parts.append(kind)
    elif table := values.get("PTTYPE"):
        parts.append(f"{table} partition table")
    if parts and (label := values.get("LABEL")):
        parts.append(f"label {label.replace(chr(92), '')}")  # blkid puts a backslash before blanks
    return ", ".join(parts)


def _has_data(host: HostReader, name: str) -> bool:
    try:
        return any(host.read_bytes(f"/dev/{name}", length=_FRONT))
    except OSError:
        return False  # not for this user (EACCES), gone (ENXIO), or unreadable blocks (EIO): nothing to name
