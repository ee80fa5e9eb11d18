"""The firmware reads a boot sector through every block front end, and what it says is on the console: data
really goes through the devices that were rendered, with no guest system at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from qemu_cases import CASES, DISK_SIZE, Case
from qemu_running import wait_until
from test_qemu_run import DAEMON, QEMU, machine_of

from nvlane.model.device import Device, Frontend

pytestmark = pytest.mark.skipif(not (QEMU and DAEMON), reason="QEMU is not installed")

WORDS = b"read by the firmware"
#: Real-mode code for 0x7c00 that writes what follows it, up to a zero byte, to the first serial port.
CODE = (
    b"\xfc"  # cld
    b"\x31\xc0\x8e\xd8"  # xor ax, ax; mov ds, ax
    b"\xbe\x16\x7c"  # mov si, 0x7c16: past the code
    b"\xba\xf8\x03"  # mov dx, 0x3f8
    b"\xac\x84\xc0"  # next: lodsb; test al, al
    b"\x74\x03"  # jz end
    b"\xee\xeb\xf8"  # out dx, al; jmp next
    b"\xf4\xeb\xfd"  # end: hlt; jmp end
)
assert len(CODE) == 0x16

#: The device of each case that the firmware boots from.
BOOTS = {
    "frontend-virtio-blk": "blk",
    "frontend-virtio-scsi": "lun",
    "frontend-nvme": "ctrl",
    "frontend-sata": "disk",
    "frontend-usb": "stick",
    "vhost-user-blk": "blk",
    "pc": "blk",
}


def bootable(case: Case, name: str) -> Case:
    """The same devices, with the first place in the boot order for one of them."""
    devices: Callable[[str], tuple[Device, ...]] = case.devices

    def first(images: str) -> tuple[Device, ...]:
        return tuple(
            dataclasses.replace(device, properties={**device.properties, "bootindex": 0})
            if isinstance(device, Frontend) and device.id == name
            else device
            for device in devices(images)
        )

    return dataclasses.replace(case, devices=first)


@pytest.mark.parametrize("name", BOOTS)
def test_the_firmware_boots(name: str, tmp_path: Path) -> None:
    case = bootable(CASES[name], BOOTS[name])
    sector = (CODE + WORDS + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    (tmp_path / "disk0.raw").write_bytes(sector.ljust(DISK_SIZE, b"\0"))
    with machine_of(dataclasses.replace(case, images=()), tmp_path):
        console = tmp_path / "run" / "console.log"
        wait_until(lambda: WORDS in console.read_bytes(), "the boot sector's words on the console")
