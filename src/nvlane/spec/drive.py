"""How a spec names a drive: '0000:04:00.0', 'serial:S4EVNX0M512345', or 'serial:…/vf0'."""

from __future__ import annotations

import re
from typing import Final

from nvlane.model.pci import PciAddress

# NVMe Base Specification 2.0, Identify Controller, SN: 20 bytes of printable ASCII, spaces included.
_SERIAL: Final = re.compile(r"serial:([ -~]{1,20}?)(?:/vf(\d{1,5}))?")


def normal_drive(text: str) -> str:
    """The one way to write this drive, so that two spellings compare equal. Raises ValueError."""
    if text.startswith("serial:"):
        match = _SERIAL.fullmatch(text)
        if match is None or not match[1].strip():
            raise ValueError(
                f"'{text}' is not a serial number; write serial:S4EVNX0M512345, or serial:S4EVNX0M512345/vf0"
            )
        return f"serial:{match[1].strip()}" + (f"/vf{int(match[2])}" if match[2] else "")
    address, slash, function = text.partition("/vf")
    try:
        whole = str(PciAddress.parse(address))
        return f"{whole}/vf{int(function)}" if slash else whole
    except ValueError:
        raise ValueError(
            f"'{text}' names no drive; write a PCI address (0000:04:00.0) or serial:S4EVNX0M512345"
        ) from None


def whole_drive(drive: str) -> str:
    """The drive that a virtual function belongs to; of any other drive, itself."""
    return re.sub(r"/vf\d+$", "", drive)
