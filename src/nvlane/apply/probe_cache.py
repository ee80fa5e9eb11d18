"""Answers of programs about themselves, kept from one run of nvlane to the next.

A cache and nothing more: it may be removed at any time, and a directory that cannot be written costs time, no result.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path


class ProbeCache:
    """Files in one directory, one a key: implements `facts.host.Cache`. Several processes may use it at once."""

    def __init__(self, directory: Path | None = None) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self._directory = directory or Path(base) / "nvlane" / "probes"

    def get(self, key: str) -> str | None:
        try:
            return self._path(key).read_text()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None  # never kept, or not for this user: the program is asked

    def put(self, key: str, text: str) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, temporary = tempfile.mkstemp(dir=self._directory)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(temporary).rename(self._path(key))
        except OSError:
            return  # a full or read-only file system (ENOSPC, EROFS, EACCES): the next run asks again

    def _path(self, key: str) -> Path:
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
