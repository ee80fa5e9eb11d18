"""What a running QEMU made of the backing of persistent memory, seen from the host: so what becomes of a store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from nvlane.model.claim import Keeps
from nvlane.model.errors import WireError
from nvlane.qemu import inspect
from nvlane.qemu.inspect import MemoryDevice, Monitor
from nvlane.wire.qmp import QmpError

_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S{4} [0-9a-f]+ [0-9a-f]+:[0-9a-f]+ \d+ *(.*)$")
#: File systems whose files are memory of the host and nothing else.
_IN_MEMORY = ("tmpfs", "ramfs", "hugetlbfs")


def kept(monitor: Monitor, device: MemoryDevice, path: str) -> Keeps:
    """What the host keeps of the guest's stores to this memory device, whose backing is the file or DAX device `path`
    ('': anonymous memory).

    The promise of an NVDIMM holds where QEMU has said `pmem=on` and the kernel has given it a mapping with MAP_SYNC,
    which smaps shows as the flag `sf` (Documentation/filesystems/proc.rst): it gives it for DAX and nothing else.
    """
    if not path:
        return Keeps.NOTHING
    if device.kind == "nvdimm":
        promised = _is_promised(monitor, device)
        synchronous = promised and is_synchronous(_smaps(monitor).splitlines(), path)
        return Keeps.FLUSHED_STORES if synchronous else Keeps.UNTIL_POWER_FAILS
    in_memory = _file_system(path) in _IN_MEMORY
    return Keeps.UNTIL_POWER_FAILS if in_memory else Keeps.SYNCED_WRITES


def _is_promised(monitor: Monitor, device: MemoryDevice) -> bool:
    try:
        return monitor.execute("qom-get", {"path": device.memdev, "property": "pmem"}) is True
    except QmpError:
        return False  # built without libpmem, QEMU has no such property (backends/hostmem-file.c)


def _smaps(monitor: Monitor) -> str:
    """QEMU's mappings. Raises WireError where this user may not see them."""
    thread = inspect.vcpu_threads(monitor)[0]
    try:
        return Path(f"/proc/{thread}/smaps").read_text(errors="surrogateescape")
    except (FileNotFoundError, PermissionError, ProcessLookupError) as error:
        raise WireError(
            f"what QEMU has mapped cannot be seen: {error}",
            remedy="verify as the user that QEMU runs as, or as root",
        ) from error


def is_synchronous(smaps: Iterable[str], path: str) -> bool:
    """Whether every mapping of a file in this smaps has MAP_SYNC, and there is one."""
    flags: list[bool] = []
    is_of_path = False
    for line in smaps:
        if found := _MAPPING.match(line):
            is_of_path = found[1] == path
        elif is_of_path and line.startswith("VmFlags:"):
            flags.append("sf" in line.split())
    return bool(flags) and all(flags)


def _file_system(path: str) -> str:
    """The type of the file system that a path is on: the deepest mount above it (proc(5), /proc/self/mounts)."""
    real = Path(path).resolve()
    best, name = -1, ""
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, place, kind, *_ = line.split(" ")
        depth = len(Path(place).parts)
        if real.is_relative_to(place) and depth >= best:
            best, name = depth, kind
    return name
