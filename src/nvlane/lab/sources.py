"""Which Debian mirror this machine already uses, read from apt's own configuration.

The lab needs a mirror and has no opinion: whatever /etc/apt names (one-line or deb822 style, sources.list(5)) is taken,
so a machine behind a company's mirror or proxy keeps to it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.model.errors import HostError

_DEBIAN = re.compile(r"^(buster|bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$")
_PASSED_ON = re.compile(r"^Acquire::(https?::|Check-Date|Check-Valid-Until)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One package source: `signed_by` is a key ring's path, or empty."""

    uri: str
    suites: tuple[str, ...]
    signed_by: str = ""


def mirror(etc: Path = Path("/etc/apt")) -> Source:
    """The source to take Debian from. NVLANE_DEBIAN_MIRROR wins. HostError when apt knows no Debian mirror."""
    if chosen := os.environ.get("NVLANE_DEBIAN_MIRROR"):
        return Source(uri=chosen, suites=())
    for source in sources(etc):
        if any(_DEBIAN.match(suite) for suite in source.suites):
            return source
    raise HostError(
        f"apt's configuration under {etc} names no Debian mirror to make the lab from",
        remedy="set NVLANE_DEBIAN_MIRROR to the address of one",
    )


def sources(etc: Path) -> Iterator[Source]:
    """All enabled binary package sources, in apt's order."""
    parts = etc / "sources.list.d"
    files = [etc / "sources.list", *(sorted(parts.iterdir()) if parts.is_dir() else [])]
    for file in files:
        if not file.is_file():
            continue
        match file.suffix:
            case ".list":
                yield from _one_line(file.read_text(errors="replace"))
            case ".sources":
                yield from _deb822(file.read_text(errors="replace"))


def _one_line(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        found = re.match(r"^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", line)
        if found:
            options = dict(word.split("=", 1) for word in (found[1] or "").split() if "=" in word)
            yield Source(uri=found[2], suites=(found[3],), signed_by=options.get("signed-by", ""))


def _deb822(text: str) -> Iterator[Source]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')}\n{line.strip()}"
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        signed_by = fields.get("signed-by", "")
        for uri in fields.get("uris", "").split():
            # A key written into the file itself has no path to name; apt's own key rings are used then.
            yield Source(
                uri=uri,
                suites=tuple(fields.get("suites", "").split()),
                signed_by=signed_by if signed_by.startswith("/") else "",
            )


def acquire_options() -> tuple[str, ...]:
    """This machine's own apt settings for reaching a mirror (proxies, certificates), as `Name "value"`."""
    dump = process.run(["apt-config", "dump"]).stdout
    kept: list[str] = []
    for line in dump.splitlines():
        if _PASSED_ON.match(line):
            words = shlex.split(line.rstrip(";"))
            if len(words) == 2 and words[1]:
                kept.append(f'{words[0]} "{words[1]}"')
    return tuple(kept)
