"""Programs to measure against, which this machine may not have: a folder of Debian 13's packages, never installed.

`qemu-img bench` with libblkio drives any vhost-user-blk target without a guest, and Debian 12's build lacks libblkio;
so both peers, `qemu-img` and `qemu-storage-daemon`, are taken from Debian 13, unpacked into the cache and started
through that folder's own dynamic loader. No privilege is needed, and nothing of the machine changes.
"""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import cache
from nvlane.lab.sources import acquire_options, mirror

SUITE = "trixie"
PACKAGES = ("qemu-utils", "qemu-block-extra", "qemu-system-common")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The folder. `environment` makes QEMU look for its modules there (QEMU, util/module.c)."""

    root: Path

    @property
    def libraries(self) -> Path:
        return next((self.root / "usr/lib").glob("*-linux-gnu"))

    @property
    def environment(self) -> Mapping[str, str]:
        return {"QEMU_MODULE_DIR": str(self.libraries / "qemu")}

    def command(self, program: str) -> tuple[str, ...]:
        """The words that start one of its programs."""
        loader = next(self.libraries.glob("ld-linux-*.so.*"))
        return (str(loader), "--library-path", str(self.libraries), str(self.root / "usr/bin" / program))


def peers() -> Peers:
    """From the cache, made first (some ten seconds and 135 MB) when they are not there."""
    return Peers(root=cache.kept("peers", cache.key(SUITE, *PACKAGES), _make) / "root")


def _make(directory: Path) -> None:
    source = mirror()
    signed = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    # A tar file, because the root of a user namespace may not write into the cache.
    packed = directory / "root.tar"
    process.run(
        [
            "mmdebstrap",
            "--mode=auto",
            "--variant=extract",
            "--format=tar",
            f"--include={','.join(PACKAGES)}",
            '--aptopt=APT::Install-Recommends "false"',
            *(f"--aptopt={option}" for option in acquire_options()),
            SUITE,
            str(packed),
            f"deb {signed}{source.uri} {SUITE} main",
        ],
        timeout=900,
    )
    with tarfile.open(packed) as tar:
        wanted = [member for member in tar if member.name.startswith("./usr/") and (member.isfile() or member.issym())]
        tar.extractall(directory / "root", members=wanted, filter="tar")
    packed.unlink()
