"""fio with everything that it loads, as a directory that runs in any guest of this architecture.

::

    <cache>/nvlane/fio/<key>/  ld.so  fio  lib/*

It is started by its own dynamic linker, so that it needs nothing of the guest but a kernel.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from nvlane.apply import process, programs
from nvlane.model.errors import HostError

#: Where the probe guest has it.
PLACE = "/opt/nvlane-fio"
_DONE = "complete"


def words(place: str) -> tuple[str, ...]:
    """The words that start fio from a kit at `place`."""
    return (f"{place}/ld.so", "--library-path", f"{place}/lib", f"{place}/fio")


def files(kit: Path) -> tuple[tuple[str, Path], ...]:
    """(path in the kit, file) of everything that a guest needs."""
    found = [kit / "ld.so", kit / "fio", *sorted((kit / "lib").iterdir())]
    return tuple((str(path.relative_to(kit)), path) for path in found)


def host_kit() -> Path | None:
    """The kit of the fio that this host has; None when it has none."""
    program = programs.find_program("fio")
    if program is None:
        return None
    libraries = programs.libraries((program,))
    seen = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in (program, *libraries)]
    return kept(seen, lambda place: put_together(place, program, libraries))


def kept(key: Iterable[str], make: Callable[[Path], None]) -> Path:
    """The kit under a key of the cache, made where it is not there; half of one is never left."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nvlane", "fio")
    place = base / hashlib.sha256("\n".join(key).encode()).hexdigest()[:24]
    if (place / _DONE).is_file():
        return place
    base.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=base))
    try:
        make(scratch)
        (scratch / _DONE).touch()
        try:
            scratch.rename(place)
        except OSError:
            # Whoever was quicker has made the same; what is not whole goes away.
            if not (place / _DONE).is_file():
                shutil.rmtree(place)
                scratch.rename(place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return place


def put_together(place: Path, program: Path, libraries: Iterable[Path]) -> None:
    """Copy a program and its libraries, the dynamic linker among them, into an empty directory, and run it there."""
    (place / "lib").mkdir()
    shutil.copy(program, place / "fio")
    for library in libraries:
        shutil.copy(library, place / "ld.so" if library.name.startswith("ld-") else place / "lib" / library.name)
    if not (place / "ld.so").is_file():
        raise HostError(f"{program} names no dynamic linker, so it cannot be taken along")
    process.run([*words(str(place)), "--version"])
