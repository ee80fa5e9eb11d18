"""What this host's processors are."""

from __future__ import annotations

from typing import Final

from nvlane.facts.attribute import attribute
from nvlane.model.host import HostReader

#: How the processor model `max` calls itself where QEMU emulates it (QEMU, target/i386/cpu.c).
_TCG: Final = "QEMU TCG CPU"


def is_emulated(host: HostReader) -> bool:
    """Whether QEMU's TCG emulates the processors of this host: it is a virtual machine, and its KVM a nested one."""
    for line in attribute(host, "/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip().startswith(_TCG)
    return False
