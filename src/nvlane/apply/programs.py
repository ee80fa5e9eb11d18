"""Programs of this host with the shared libraries that they need, to be taken into an initramfs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from nvlane.apply.process import run
from nvlane.model.errors import HostError

LIBRARY_DIRECTORIES = (
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib",
    "/usr/lib",
)
PROGRAM_DIRECTORIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_program(name: str) -> Path | None:
    """Where a program is, administrators' directories included."""
    found = shutil.which(name, path=PROGRAM_DIRECTORIES)
    return Path(found) if found else None


def find_library(name: str) -> Path | None:
    """Where the dynamic linker would find a library."""
    places = (Path(directory, name) for directory in LIBRARY_DIRECTORIES)
    return next((place for place in places if place.is_file()), None)


def libraries(objects: Iterable[Path]) -> tuple[Path, ...]:
    """The libraries that programs and libraries need, and the dynamic linker, at the paths where they are found.

    Raises HostError when one of them is nowhere: the program would not run here either.
    """
    every: set[Path] = set()
    for path in objects:
        every |= _needed(path)
    return tuple(sorted(every))


def _needed(path: Path) -> set[Path]:
    needed = set()
    done = run(("ldd", str(path)), env={"LC_ALL": "C"}, check=False)
    for line in done.stdout.splitlines():
        # "libc.so.6 => /lib/…/libc.so.6 (0x…)", "/lib64/ld-linux-x86-64.so.2 (0x…)", "linux-vdso.so.1 (0x…)"
        words = line.split()
        if "=>" in words and "not" in words:
            raise HostError(f"{path} needs {words[0]}, which is not on this host", remedy="install its package")
        needed |= {Path(word) for word in words if word.startswith("/") and not word.endswith(":")}
    return needed
