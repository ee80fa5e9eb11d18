"""Debian roots with libvirt in them: Debian 12's (libvirt 9.0, QEMU 7.2) and Debian 13's (libvirt 11.3, QEMU 10.0).

Made by mmdebstrap once and kept by content, as the lab's image is. Both boot their guests with Debian 13's kernel.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import cache
from nvlane.lab.image import private_mounts
from nvlane.lab.sources import acquire_options, mirror

PACKAGES = (
    "libvirt-daemon", "libvirt-daemon-driver-qemu", "libvirt-clients", "python3-libvirt",
    "python3-click", "python3-rich", "qemu-system-x86", "qemu-utils", "seabios",
    # What a guest of a user's own has: its initramfs is made of the root's programs.
    "qemu-guest-agent", "busybox",
)  # fmt: skip
#: What only one of them needs. Debian 12 has virtlogd in libvirt-daemon, and keeps libvirt's configuration elsewhere.
MORE = {"bookworm": (), "trixie": ("libvirt-daemon-log", "kmod", "xz-utils")}
UNNEEDED = ("doc", "man", "locale", "info", "lintian", "qemu-efi*", "OVMF")
#: Where things are mounted; and Debian 13's kernel, unpacked and not installed, since nobody here needs its initramfs.
HOOKS = {
    "bookworm": 'mkdir -p "$1/nvlane" "$1/usr/lib/modules"',
    "trixie": """mkdir -p "$1/nvlane" && chroot "$1" sh -euc '
        cd /tmp
        kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/^ *Depends: \\(linux-image-[0-9].*\\)/\\1/p")
        apt-get download -qq -o APT::Sandbox::User=root "$kernel"
        dpkg -x "$kernel"_*.deb /
        rm -f "$kernel"_*.deb
        rm -rf /usr/lib/modules/*/kernel/sound /usr/lib/modules/*/kernel/drivers/gpu /usr/lib/modules/*/kernel/net
        find /usr/lib/modules -name "*.ko.xz" -print0 | xargs -0 -r -n64 xz -d
        depmod "$(ls /usr/lib/modules)"'""",
}
TRIM = 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/usr/share/zoneinfo "$1"/usr/share/doc'
DEADLINE = 1800.0


@dataclass(frozen=True, kw_only=True)
class Root:
    """A directory tree to look at, never to change: what runs in it has its own /etc, /var, /run and /tmp."""

    suite: str
    tree: Path


def root(suite: str) -> Root:
    """The root of a release from the cache, made first (about a minute) when it is not there."""
    name = cache.key(suite, *PACKAGES, *MORE[suite], *UNNEEDED, HOOKS[suite], TRIM)
    return Root(suite=suite, tree=cache.kept(f"libvirt-{suite}", name, lambda at: _make(suite, at)) / "tree")


def _make(suite: str, directory: Path) -> None:
    source = mirror()
    signed = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    with tempfile.TemporaryDirectory(prefix="nvlane-", ignore_cleanup_errors=True) as temporary:
        Path(temporary).chmod(0o755)
        archive = f"{temporary}/root.tar"
        command = [
            *private_mounts(),
            *("mmdebstrap", "--mode=auto", "--variant=apt", "--format=tar"),
            f"--include={','.join((*PACKAGES, *MORE[suite]))}",
            *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in UNNEEDED),
            "--dpkgopt=force-unsafe-io",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            *(f"--aptopt={option}" for option in acquire_options()),
            f"--customize-hook={HOOKS[suite]}",
            f"--customize-hook={TRIM}",
            *(suite, archive, f"deb {signed}{source.uri} {suite} main"),
        ]
        process.run(command, timeout=DEADLINE, env={"TMPDIR": temporary})
        (directory / "tree").mkdir()
        process.run(["tar", "-xf", archive, "-C", str(directory / "tree"), "--exclude=./dev/*"], timeout=DEADLINE)
