"""fio out of Debian's packages, for a host that has none: nothing of it is installed here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from nvlane.apply import fio_kit, process, programs
from nvlane.lab.image import SUITE, private_mounts
from nvlane.lab.sources import acquire_options, mirror
from nvlane.model.errors import HostError

_DEADLINE = 900.0
_PACKAGES = ("fio", "libc6")


def debian_kit(progress: Callable[[str], None]) -> Path:
    """The kit of Debian's fio, from the cache or made anew. Raises HostError where it cannot be made."""

    def make(place: Path) -> None:
        if programs.find_program("mmdebstrap") is None:
            raise HostError(
                "neither the guest nor this host has fio, and without mmdebstrap it cannot be taken from Debian",
                remedy="install fio in the guest or on this host, or mmdebstrap on this host",
            )
        progress("taking fio from Debian's packages (once, about a minute)")
        with tempfile.TemporaryDirectory(prefix="nvlane-", ignore_cleanup_errors=True) as temporary:
            Path(temporary).chmod(0o755)  # a user namespace's root has to get through
            root = _extracted(Path(temporary))
            fio_kit.put_together(place, root / "usr/bin/fio", _libraries(root))

    return fio_kit.kept([SUITE, *_PACKAGES], make)


def _extracted(temporary: Path) -> Path:
    source = mirror()
    signed = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    archive = temporary / "root.tar"
    process.run(
        [
            *private_mounts(),
            "mmdebstrap",
            "--mode=auto",
            "--variant=extract",
            "--format=tar",
            f"--include={','.join(_PACKAGES)}",
            '--aptopt=APT::Install-Recommends "false"',
            '--aptopt=Acquire::Languages "none"',
            *(f"--aptopt={option}" for option in acquire_options()),
            SUITE,
            str(archive),
            f"deb {signed}{source.uri} {SUITE} main",
        ],
        timeout=_DEADLINE,
        env={"TMPDIR": str(temporary)},
    )
    root = temporary / "root"
    root.mkdir()
    # Device nodes need root, and fio needs none.
    process.run(["tar", "-xf", str(archive), "-C", str(root), "--exclude=./dev"], timeout=_DEADLINE)
    return root


def _libraries(root: Path) -> list[Path]:
    """What fio loads, as the extracted dynamic linker itself finds it."""
    library = next(path.parent for path in root.glob("usr/lib/*/libc.so.6"))
    linker = next(path for path in library.glob("ld-linux*") if path.is_file())
    directories = f"{library}:{library}/ceph"
    done = process.run([str(linker), "--library-path", directories, "--list", str(root / "usr/bin/fio")])
    found = [Path(line.split("=>")[1].split()[0]) for line in done.stdout.splitlines() if "=> /" in line]
    return [*(path for path in found if not path.name.startswith("ld-")), linker]
