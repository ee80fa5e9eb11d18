"""PCI addresses: domain:bus:device.function, as lspci and sysfs write them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

_FORM: Final = re.compile(r"(?:([0-9a-fA-F]{4,8}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])")

#: Class code of an NVM Express controller: mass storage, non-volatile memory, NVMe (PCI Code and ID Assignment, 1.9).
NVME_CLASS: Final = 0x010802
#: A bridge of any kind: the base class.
BRIDGE_BASE_CLASS: Final = 0x06


@dataclass(frozen=True, slots=True, order=True)
class PciAddress:
    """One PCI function. `str()` gives the form of sysfs, '0000:04:00.0'."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """'0000:04:00.0' or '04:00.0' (domain 0). Raises ValueError."""
        match = _FORM.fullmatch(text.strip())
        if match is None or int(match[3], 16) > 0x1F:
            raise ValueError(f"'{text}' is not a PCI address; write it as 0000:04:00.0")
        return cls(int(match[1] or "0", 16), int(match[2], 16), int(match[3], 16), int(match[4]))

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"

    @property
    def sysfs(self) -> str:
        return f"/sys/bus/pci/devices/{self}"
