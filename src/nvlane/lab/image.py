"""The lab's root: Debian 13 made by mmdebstrap, as a disk that boots without an initramfs.

Debian's cloud kernel has NVMe and ext4 built in, so `root=PARTUUID=` finds the root by itself. Nothing here needs root:
mmdebstrap uses a user namespace, and mke2fs fills the file system without mounting it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from uuid import UUID

from nvlane.apply import process
from nvlane.lab import cache, gpt
from nvlane.lab.machine import ROOT_PARTITION
from nvlane.lab.sources import acquire_options, mirror

SUITE = "trixie"
PACKAGES = (
    # nvlane's own world: the hypervisor, and Python to run nvlane.
    "qemu-system-x86", "qemu-system-common", "qemu-utils", "seabios", "python3",
    # What lanes and their proofs use.
    "nvme-cli", "ktls-utils", "ndctl", "daxctl", "libpmem1", "fio", "e2fsprogs", "xfsprogs",
    # What makes a drive "in use".
    "lvm2", "mdadm", "cryptsetup-bin", "btrfs-progs", "bcache-tools", "dmsetup",
    # The other owner of machines, with what Python and people ask it with.
    "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-daemon-log", "libvirt-clients", "python3-libvirt",
    # What a guest of the tests has: the lab's own root is where they take it from.
    "qemu-guest-agent",
    # The room itself.
    "kmod", "iproute2", "dropbear-bin", "busybox", "procps", "util-linux", "xz-utils",
)  # fmt: skip

_FILE_SYSTEM_MIB = 1600
_FILE_SYSTEM = UUID("6e766c61-6e65-4c61-8b00-000000000000")
_DISK = UUID("6e766c61-6e65-4c61-8b00-000000000002")
_UNNEEDED = ("doc", "man", "locale", "info", "lintian")
_DEADLINE = 1800.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A finished root: a raw disk, its kernel (bzImage) and release, and the root's Python as a tar file."""

    key: str
    disk: Path
    kernel: Path
    python: Path
    packages: Path


def image(progress: Progress) -> Image:
    """The lab's image from the cache, made first (about a minute) when it is not there."""
    recipe = resources.files("nvlane.lab") / "recipe"
    texts = {name: (recipe / name).read_text() for name in ("customize.sh", "init.sh", "profile.sh", "poweroff.sh")}
    name = cache.key(SUITE, *PACKAGES, str(_FILE_SYSTEM_MIB), *(f"{file}\n{text}" for file, text in texts.items()))

    def make(directory: Path) -> None:
        progress("making the lab's Debian 13 image (once, about a minute)")
        _make(directory, texts, progress)

    done = cache.kept("image", name, make)
    return Image(
        key=name,
        disk=done / "root.img",
        kernel=done / "vmlinuz",
        python=done / "python.tar",
        packages=done / "packages",
    )


def _make(directory: Path, texts: dict[str, str], progress: Progress) -> None:
    recipe = directory / "recipe"
    recipe.mkdir()
    for name, text in texts.items():
        (recipe / name).write_text(text)
    # A temporary directory of our own, because an interrupted mmdebstrap leaves its key ring in there.
    with tempfile.TemporaryDirectory(prefix="nvlane-", ignore_cleanup_errors=True) as temporary:
        Path(temporary).chmod(0o755)  # the user namespace's root is somebody else, and has to get through
        command, environment = _command(directory, recipe), {"TMPDIR": temporary}
        for line in process.stream(command, timeout=_DEADLINE, env=environment):
            if line.startswith("I: ") and not line.startswith("I: running"):
                progress(f"image: {line[3:]}")
    for file in recipe.iterdir():
        file.unlink()
    recipe.rmdir()
    disk = directory / "root.img"
    gpt.write_table(disk, disk=_DISK, partition=ROOT_PARTITION)
    # The copy out of mmdebstrap wrote every zero. Where holes cannot be, half the space is simply not saved.
    process.run(["fallocate", "--dig-holes", str(disk)], check=False)


def _command(directory: Path, recipe: Path) -> list[str]:
    source = mirror()
    signed = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    settings = f"LAB_FS_MIB={_FILE_SYSTEM_MIB} LAB_FS_UUID={_FILE_SYSTEM} LAB_FS_OFFSET={gpt.FIRST_BYTE}"
    return [
        *private_mounts(),
        "mmdebstrap",
        "--mode=auto",
        "--variant=apt",
        "--format=null",
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _UNNEEDED),
        "--dpkgopt=force-unsafe-io",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        *(f"--aptopt={option}" for option in acquire_options()),
        # The special hooks copy through mmdebstrap itself: the namespace's root may not enter the user's home.
        '--customize-hook=mkdir "$1/lab-recipe"',
        f"--customize-hook=sync-in {recipe} /lab-recipe",
        f'--customize-hook={settings} sh "$1/lab-recipe/customize.sh" "$1" "$1/lab-recipe"',
        f"--customize-hook=sync-out /lab-out {directory}",
        SUITE,
        "-",
        f"deb {signed}{source.uri} {SUITE} main",
    ]


def private_mounts() -> tuple[str, ...]:
    """Words before mmdebstrap that put what it mounts where only it sees it: then nothing stays mounted when it is
    killed. Without root it makes a namespace of its own; where a container forbids this one, it cannot mount either."""
    words = ("unshare", "--mount", "--propagation", "slave", "--")
    if os.geteuid() != 0 or process.run([*words, "true"], check=False).returncode != 0:
        return ()
    return words
