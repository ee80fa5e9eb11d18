"""Which QEMU runs the lab's outer machine.

Where the lab has no KVM, QEMU emulates processors that run nested guests. An older one is suspected of losing an
interrupt then: since 10.2 one function sets the flags of a processor's pending interrupts (cpu_set_interrupt, used by
VMRUN in target/i386/tcg/system/svm_helper.c); 7.2 even kills programs with SIGSEGV.

Any (seen with 11.1.3) may deliver an interrupt to a nested guest twice. VMRUN leaves the vector that it injects in
CPUState.exception_index. If another thread then kicks the processor, with no interrupt to be seen yet
(cpu_handle_interrupt in accel/tcg/cpu-exec.c looks at interrupt_request first and at exit_request after it), that
vector is raised as an exception, whether the guest has interrupts off or not: its timer's handler runs within itself,
and spins on the run queue's lock for good. The next exit of the guest clears it, so nvlane has the guests of an
emulated host leave at the end of each interrupt (lanes/machine.py), which is before their handlers take locks. Kicked
by `stop` and `cont` of the lab, 8 to 100 a second, 8 of 10 guests spun without that, and 45 of 45 came up with it.
What is left is short; what runs in the lab has a second chance for that, and for processors of the lab that stall.

An older QEMU is passed over for the one in Debian's backports, which is unpacked into the cache with all the libraries
it needs, down to the loader: nothing is installed, apt's own configuration and lists stay as they are, and it runs on
any release.
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
#: The first is taken without a doubt; from the second on the lab runs at all.
SOUND = (10, 2)
OLDEST = (8, 2)
_SUITES = ("trixie", "trixie-backports")
_PACKAGES = ("qemu-system-x86",)
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
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
    """The QEMU to use. NVLANE_LAB_QEMU wins; then a sound one on PATH; then Debian's backport; and where that cannot
    be fetched, any on PATH that runs the lab at all."""
    if chosen := os.environ.get("NVLANE_LAB_QEMU"):
        return Emulator(argv=(chosen,), version=_version((chosen,)), why="NVLANE_LAB_QEMU names it")
    found = shutil.which(PROGRAM)
    version = _version((found,)) if found else ()
    if found and version >= SOUND:
        return Emulator(argv=(found,), version=version, why="the one on PATH")
    try:
        return _backport(version, progress)
    except HostError as error:
        if found and version >= OLDEST:
            return Emulator(argv=(found,), version=version, why=f"the one on PATH, as there is no newer: {error}")
        raise HostError(
            f"the lab needs QEMU {_dotted(OLDEST)} or newer, better {_dotted(SOUND)}; PATH has "
            f"{_dotted(version) or 'none'}, and Debian's backport cannot be had: {error}",
            remedy="install qemu-system-x86, or name another QEMU in NVLANE_LAB_QEMU",
        ) from error


def _backport(old: tuple[int, ...], progress: Callable[[str], None]) -> Emulator:
    def make(directory: Path) -> None:
        progress(f"fetching QEMU from {_SUITES[-1]} (once)")
        unpack(directory, _SUITES, _PACKAGES)

    root = cache.kept("emulator", cache.key(*_SUITES, *_PACKAGES), make)
    libraries = root / _LIBRARIES
    loader = (str(root / "usr/lib64/ld-linux-x86-64.so.2"), "--library-path", str(libraries))
    program = (*loader, str(root / "usr/bin" / PROGRAM))
    argv = (*program, *(word for data in _DATA for word in ("-L", str(root / data))))
    # Modules of the installed QEMU do not fit this one (QEMU, util/module.c).
    environment = (("QEMU_MODULE_DIR", str(libraries / "qemu")),)
    version = _version(argv, dict(environment))
    why = f"from {_SUITES[-1]}: this machine's QEMU {_dotted(old) or '(none)'} will not do"
    return Emulator(argv=argv, environment=environment, version=version, why=why)


def unpack(directory: Path, suites: Sequence[str], packages: Sequence[str], *, alone: bool = False) -> None:
    """The files of these packages, and of all that they depend on unless they are wanted `alone`, from the last of the
    suites where it has them. Nothing is installed. HostError when the mirror does not give them."""
    source = mirror()
    signed = f"[signed-by={source.signed_by}] " if source.signed_by else ""
    work = directory / "apt"
    archives = work / "cache" / "archives"
    (work / "lists" / "partial").mkdir(parents=True)
    (archives / "partial").mkdir(parents=True)
    (work / "sources.list").write_text("".join(f"deb {signed}{source.uri} {suite} main\n" for suite in suites))
    # As if nothing were installed: so the dependencies come as well.
    (work / "status").touch()
    options = {
        "Dir::Etc::sourcelist": work / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "APT::Install-Recommends": "false",
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    process.run([*apt, "update"], timeout=300)
    wanted = ["download"] if alone else ["install", "--yes", "--download-only"]
    process.run([*apt, *wanted, "--target-release", suites[-1], *packages], timeout=600, cwd=archives)
    for package in archives.glob("*.deb"):
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
