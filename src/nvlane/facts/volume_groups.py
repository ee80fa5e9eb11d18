"""LVM and ZFS members that are in use although nothing in sysfs stands on them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from nvlane.facts.attribute import attribute
from nvlane.facts.blocks import Blocks
from nvlane.facts.content import read_contents
from nvlane.model.errors import HostError
from nvlane.model.host import HostReader

_LABEL: Final = b"LABELONE"  # lib/label/label.h of LVM2; in one of the first four sectors
_METADATA: Final = 1 << 20  # the default place of metadata ends here, at the first extent
_GROUP: Final = re.compile(rb'([A-Za-z0-9+_.-]+) \{\s*id = "([A-Za-z0-9-]{38})"')


def active_volume_group(host: HostReader, blocks: Blocks, name: str) -> str:
    """Evidence that a device is a physical volume of a volume group with an active logical volume, '' for none.

    Such a group breaks when one of its physical volumes goes, also one that no active volume has extents on. The
    device's own metadata says which group (its UUID); a device-mapper UUID begins with the group's
    (LVM-<group><volume>, lib/activate/dev_manager.c).
    """
    active = {b.dm_uuid[4:36]: b for b in blocks.by_name.values() if b.dm_uuid.startswith("LVM-")}
    if not active:
        return ""
    try:
        front = host.read_bytes(f"/dev/{name}", length=_METADATA)
    except OSError:
        return ""  # not for this user (EACCES) or unreadable: the holders still tell of volumes on this device
    if _LABEL not in front[:2048]:
        return ""
    for group, uuid in _GROUP.findall(front[2048:]):
        volume = active.get(uuid.decode().replace("-", ""))
        if volume is not None:
            return f"physical volume of the group {group.decode()}, whose volume {volume.dm_name} is active"
    return ""


def read_zfs_members(host: HostReader, blocks: Blocks) -> dict[str, str] | None:
    """Block name to evidence, of all imported pools; None when ZFS is loaded and nothing tells which devices it has."""
    if not host.exists("/sys/module/zfs"):
        return {}
    try:
        output = host.query(["zpool", "status", "-LP"])
    except HostError:
        return None  # no zpool program
    if output.status != 0:
        return None  # not for this user
    return parse_zpool_status(output.stdout, host, blocks)


def parse_zpool_status(text: str, host: HostReader, blocks: Blocks) -> dict[str, str]:
    """The 'config:' lines with a device: '  /dev/nvme0n1p1  ONLINE  0 0 0', under their 'pool:' line."""
    found = {}
    pool = ""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) == 2 and fields[0] == "pool:":
            pool = fields[1]
        elif len(fields) >= 2 and fields[0].startswith("/dev/") and (name := blocks.named(host, fields[0])):
            found[name] = f"zpool status -LP says that the pool {pool} has {fields[0]} ({fields[1]})"
    return found


def zfs_signature(host: HostReader, devices: Iterable[str]) -> dict[str, str]:
    """Members by signature, for when ZFS is loaded and does not tell: they may be in use, so they are taken as such."""
    return {
        content.device: "it has a zfs_member signature, and the zfs module is loaded"
        for content in read_contents(host, tuple(devices))
        if "zfs_member" in content.what and attribute(host, "/sys/module/zfs/initstate", "live") != "going"
    }
