"""Limits of this process that its children inherit."""

from __future__ import annotations

import re

from nvlane.facts.attribute import attribute
from nvlane.facts.shape import Limits
from nvlane.model.host import HostReader

_CAP_SYS_RESOURCE = 24  # include/uapi/linux/capability.h


def read_limits(host: HostReader) -> Limits:
    """The locked-memory limit that nvlane can give a child by itself: the hard limit, since anybody may raise the soft
    one to it (setrlimit(2)). Bytes, None for unlimited."""
    match = re.search(r"^Max locked memory\s+(\S+)\s+(\S+)", attribute(host, "/proc/self/limits"), re.MULTILINE)
    hard = match[2] if match else "0"
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)", attribute(host, "/proc/self/status"), re.MULTILINE)
    capable = effective is not None and bool(int(effective[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return Limits(memlock=int(hard) if hard.isdigit() else None, can_raise=capable)
