"""Which QEMU runs the lab's outer machine.

QEMU 7.2, which Debian 12 ships, sometimes kills the lab's programs with SIGSEGV when two emulated processors run in
parallel; 10.0 does not. So an older QEMU is passed over for the one in Debian 12's backports, unpacked from its
packages into the cache: nothing is installed and apt's own configuration and lists stay as they are.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import cache
from nvlane.lab.sources import mirror
from nvlane.model.errors import HostError

PROGRAM = "qemu-system-x86_64"
OLDEST = (8, 2)
_BACKPORTS = "bookworm-backports"
_PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Emulator:
    """A QEMU: the words that start it, what its environment needs, its version, and why it was taken."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    version: tuple[int, ...]
    why: str

    @property
    def version_text(self) -> str:
        return _dotted(self.version)


def emulator(progress: Callable[[str], None]) -> Emulator:
    """The QEMU to use. NVLANE_LAB_QEMU wins; then one on PATH that is new enough; then Debian's backport."""
    if chosen := os.environ.get("NVLANE_LAB_QEMU"):
        return Emulator(argv=(chosen,), version=_version((chosen,)), why="NVLANE_LAB_QEMU names it")
    found = shutil.which(PROGRAM)
    version = _version((found,)) if found else ()
    if found and version >= OLDEST:
        return Emulator(argv=(found,), version=version, why="the one on PATH")
    if _release() != "bookworm":
        raise HostError(
            f"the lab needs QEMU {_dotted(OLDEST)} or newer; PATH has {_dotted(version) or 'none'}",
            remedy="install qemu-system-x86, or name another QEMU in NVLANE_LAB_QEMU",
        )
    return _backport(version, progress)


def _backport(old: tuple[int, ...], progress: Callable[[str], None]) -> Emulator:
    def make(directory: Path) -> None:
        progress(f"fetching QEMU from {_BACKPORTS} (once)")
        unpack(directory, _BACKPORTS, _PACKAGES)

    root = cache.kept("emulator", cache.key(_BACKPORTS, *_PACKAGES), make)
    program = str(root / "usr/bin" / PROGRAM)
    argv = (program, *(word for data in _DATA for word in ("-L", str(root / data))))
    modules = next((root / "usr/lib").glob("*/qemu"), root)
    # Modules of the installed QEMU do not fit this one (QEMU, util/module.c).
    environment = (("QEMU_MODULE_DIR", str(modules)),)
    version = _version(argv, dict(environment))
    why = f"from {_BACKPORTS}: this machine's QEMU {_dotted(old) or '(none)'} will not do"
    return Emulator(argv=argv, environment=environment, version=version, why=why)


def unpack(directory: Path, suite: str, packages: Sequence[str]) -> None:
    """The files of a Debian release's packages, without installing any and without what they depend on."""
    source = mirror()
    signed = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    work = directory / "apt"
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    (work / "sources.list").write_text(f"deb {signed}{source.uri} {suite} main\n")
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    process.run([*apt, "update"], timeout=300)
    process.run([*apt, "download", *packages], timeout=600, cwd=work)
    for package in work.glob("*.deb"):
        process.run(["dpkg", "-x", str(package), str(directory)], timeout=120)
    shutil.rmtree(work)


def _version(argv: tuple[str, ...], environment: dict[str, str] | None = None) -> tuple[int, ...]:
    text = process.run([*argv, "--version"], env=environment, timeout=20).stdout
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", text)
    if not found:
        raise HostError(f"{argv[0]} does not say its version: {text.strip()[:80]!r}")
    return tuple(int(part) for part in found.groups())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _release() -> str:
    path = Path("/etc/os-release")
    fields = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return fields.get("VERSION_CODENAME", "").strip('"')
