"""Debian's full kernel for the lab, in place of its cloud kernel: RDMA and USB are there only.

NVMe, ext4 and virtio_blk are modules of it, so it starts from a small initramfs. The root is the same for both kernels:
this one brings its modules on a disk of its own, which the initramfs binds into the root.

::

    vmlinuz, initrd ── LABROOT (root) ┬── /usr/lib/modules ── LABKERNEL:/modules
                                      └── /boot            ── LABKERNEL:/boot
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nvlane.apply import cpio, kernel_modules, process
from nvlane.lab import cache
from nvlane.lab.drives import MIB
from nvlane.lab.emulator import unpack
from nvlane.lab.image import SUITE

#: The kernel, and what makes its initramfs and its modules' tables: the release's own, whatever this machine is.
_PACKAGES = ("linux-image-amd64", "busybox-static", "kmod")
#: What the initramfs loads, in this order, each after what it needs.
_FIRST = ("virtio_blk", "nvme", "ext4", "crc32c_generic")
#: Hardware that the lab has none of: four fifths of the modules.
_UNNEEDED = (
    "sound", "net/wireless", "net/mac80211", "net/bluetooth", "drivers/accel", "drivers/bluetooth", "drivers/gpu",
    "drivers/hid", "drivers/hwmon", "drivers/iio", "drivers/infiniband/hw", "drivers/input", "drivers/media",
    "drivers/net/can", "drivers/net/ethernet", "drivers/net/usb", "drivers/net/wireless", "drivers/net/wwan",
    "drivers/platform", "drivers/power", "drivers/regulator", "drivers/rtc", "drivers/soundwire", "drivers/staging",
    "drivers/thunderbolt", "drivers/video",
)  # fmt: skip
_DISK_BYTES = 512 * MIB
_APPLETS = ("sh", "insmod", "mount", "sleep", "switch_root", "umount")


@dataclass(frozen=True, slots=True, kw_only=True)
class FullKernel:
    """The kernel (bzImage), its initramfs, and the disk with its modules (ext4, no partitions)."""

    kernel: Path
    initrd: Path
    disk: Path


def full_kernel(progress: Callable[[str], None]) -> FullKernel:
    """The full kernel from the cache, made first when it is not there."""
    script = (resources.files("nvlane.lab") / "recipe" / "initramfs.sh").read_text()

    def make(directory: Path) -> None:
        progress("fetching Debian's full kernel (once, half a minute)")
        _make(directory, script)

    done = cache.kept("kernel", cache.key(SUITE, *_PACKAGES, *_FIRST, *_UNNEEDED, *_APPLETS, script), make)
    return FullKernel(kernel=done / "vmlinuz", initrd=done / "initrd", disk=done / "modules.img")


def _make(directory: Path, script: str) -> None:
    with tempfile.TemporaryDirectory(prefix=".kernel-", dir=directory) as scratch:
        root = Path(scratch)
        unpack(root, (SUITE,), _PACKAGES)
        (modules,) = (root / "usr/lib/modules").iterdir()
        for name in _UNNEEDED:
            shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
        # Unpacked modules load several times as fast when every instruction is emulated.
        packed = [str(path) for path in sorted(modules.rglob("*.ko.xz"))]
        process.run(["xargs", "-0", "-P2", "-n64", "xz", "-d"], input="\0".join(packed), timeout=300)
        _depmod(root, modules.name)
        shutil.copy2(root / "boot" / f"vmlinuz-{modules.name}", directory / "vmlinuz")
        with (directory / "initrd").open("wb") as stream:
            cpio.write(stream, _entries(root, modules, script))
        tree = root / "disk"
        (tree / "boot").mkdir(parents=True)
        for name in ("vmlinuz", "config"):
            (root / "boot" / f"{name}-{modules.name}").rename(tree / "boot" / f"{name}-{modules.name}")
        modules.parent.rename(tree / "modules")
        _write_disk(directory / "modules.img", tree)


def _depmod(root: Path, release: str) -> None:
    loader = [str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(root / "usr/lib/x86_64-linux-gnu")]
    process.run([*loader, str(root / "usr/sbin/depmod"), "-b", f"{root}/usr", release], timeout=120)


def _entries(root: Path, modules: Path, script: str) -> Iterator[cpio.Entry]:
    tables = kernel_modules.read(modules.parent, modules.name)
    order: dict[str, Path] = {}
    for name in _FIRST:
        for path in reversed(tables.files.get(name, ())):  # nearest first, so the last needs nothing
            order[kernel_modules.module_name(path)] = modules / path
    yield cpio.character_device("/dev/console", 5, 1)
    yield cpio.file("/init", script.encode(), mode=0o755)
    yield cpio.file("/bin/busybox", (root / "usr/bin/busybox").read_bytes(), mode=0o755)
    yield from (cpio.symlink(f"/bin/{name}", "busybox") for name in _APPLETS)
    yield from (cpio.directory(f"/{name}") for name in ("proc", "sys", "root", "kernel"))
    yield from (cpio.file(f"/modules/{name}.ko", kernel_modules.content(path)) for name, path in order.items())
    yield cpio.file("/modules/order", "".join(f"{name}\n" for name in order).encode())


def _write_disk(target: Path, tree: Path) -> None:
    with target.open("wb") as file:
        file.truncate(_DISK_BYTES)
    options = ["-O", "^has_journal,^metadata_csum", "-E", "root_owner=0:0,lazy_itable_init=1", "-m", "0"]
    process.run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(tree), str(target)], timeout=120)
