"""A guest that is not nvlane's own: a kernel, busybox and the QEMU guest agent, taken from the lab's own root."""

from __future__ import annotations

import os
from pathlib import Path

from nvlane.apply import cpio, kernel_modules, programs
from nvlane.apply.initramfs import packaged_probe

INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /run /tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod "/modules/$module"; done
until port=$(grep -l org.qemu.guest_agent.0 /sys/class/virtio-ports/*/name); do sleep 0.1; done
port=${port%/name}
exec qemu-ga --method=virtio-serial --path="/dev/${port##*/}" --statedir=/run
"""
MODULES = ("virtio_pci", "virtio_console", "nvme", "virtio_blk")


def build(target: Path, release: str = "") -> None:
    """Write its initramfs, for the kernel that runs here or another one."""
    tools = {name: programs.find_program(name) for name in ("busybox", "qemu-ga")}
    found = {name: path for name, path in tools.items() if path is not None}
    assert found.keys() == tools.keys(), f"there is only {sorted(found)}"
    # The probe that is uploaded needs what every distribution has: libc and libgcc.
    libraries = programs.libraries((*found.values(), packaged_probe()))
    modules = kernel_modules.read(Path("/lib/modules"), release or os.uname().release)
    order: dict[str, None] = {}
    for own, *needs in modules.closure(MODULES).values():
        order.update(dict.fromkeys([*reversed(needs), own]))
    entries = [
        cpio.character_device("/dev/console", 5, 1),
        cpio.file("/init", INIT.encode(), mode=0o755),
        *(cpio.file(f"/bin/{name}", path.read_bytes(), mode=0o755) for name, path in found.items()),
        *(cpio.file(str(path), path.read_bytes(), mode=0o755) for path in libraries),
        *(cpio.file(f"/modules/{name(path)}", kernel_modules.content(modules.directory / path)) for path in order),
        cpio.file("/modules/order", "\n".join(map(name, order)).encode()),
    ]
    with target.open("wb") as stream:
        cpio.write(stream, entries)


def name(path: str) -> str:
    return f"{kernel_modules.module_name(path)}.ko"
