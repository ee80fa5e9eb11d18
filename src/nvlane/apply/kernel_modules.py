"""The modules of an installed kernel: which files a module needs, and the tables cut down to a selection.

The tables are kmod's (modules.dep(5), depmod(8)), read as text.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import zstd
from nvlane.model.errors import HostError

LARGEST_MODULE = 64 << 20
"""Bytes; no module that we take is near it."""


def module_name(path: str) -> str:
    """The name of the module in a file: `kernel/drivers/usb/storage/usb-storage.ko.xz` is `usb_storage`."""
    return path.rsplit("/", 1)[-1].split(".ko")[0].replace("-", "_")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelModules:
    """What one kernel's tables say. Files are relative to `directory`, names have underscores."""

    directory: Path
    files: dict[str, tuple[str, ...]]
    """Of a module by name: its own file, then those it needs, nearest first."""
    built_in: frozenset[str]
    aliases: tuple[tuple[str, str], ...]
    soft_dependencies: tuple[str, ...]

    def closure(self, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The modules wanted that exist as files, and all they need, as lines of modules.dep."""
        chosen: dict[str, tuple[str, ...]] = {}
        for name in names:
            for path in self.files.get(name, ()):
                chosen[module_name(path)] = self.files[module_name(path)]
        return dict(sorted(chosen.items()))

    def missing(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those that are neither a file nor built into the kernel."""
        return tuple(sorted(name for name in names if name not in self.files and name not in self.built_in))


def read(modules_root: Path, release: str) -> KernelModules:
    """Read the tables of one kernel. Raises HostError when it has none."""
    directory = modules_root / release

    def lines(table: str) -> list[str]:
        try:
            return (directory / table).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError as error:
            raise HostError(
                f"kernel {release} has no {directory / table}",
                remedy=f"install the kernel's modules, or run depmod {release}",
            ) from error

    files = {}
    for line in lines("modules.dep"):
        own, _, needs = line.partition(":")
        files[module_name(own)] = (own, *needs.split())
    aliases = [tuple(words[1:]) for words in map(str.split, lines("modules.alias")) if len(words) == 3]
    return KernelModules(
        directory=directory,
        files=files,
        built_in=frozenset(module_name(line) for line in lines("modules.builtin")),
        aliases=tuple((pattern, name) for pattern, name in aliases),
        soft_dependencies=tuple(line for line in lines("modules.softdep") if line.startswith("softdep ")),
    )


def content(path: Path) -> bytes:
    """A module as the kernel's finit_module takes it, decompressed."""
    packed = path.read_bytes()
    match path.suffix:
        case ".ko":
            return packed
        case ".xz":
            return lzma.decompress(packed)
        case ".gz":
            import gzip

            return gzip.decompress(packed)
        case ".zst":
            return zstd.decompress(packed, LARGEST_MODULE)
        case other:
            raise HostError(f"{path}: modules packed as {other} cannot be unpacked")
