"""Where the lab keeps things on the machine it is started on."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Images, emulators, byte code: all of it can be deleted and comes back."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "nvlane" / "lab"


def runtime_dir() -> Path:
    """Sockets, keys and logs of running labs: beside nvlane's own runtime directory, whose names are machines' names.

    NVLANE_RUNTIME_DIR wins; then /run for root; then the session's own. A user without a session (a cron job, a
    container) has none, and then it is the cache: sockets work there too.
    """
    if chosen := os.environ.get("NVLANE_RUNTIME_DIR"):
        return Path(f"{chosen}-lab")
    if os.geteuid() == 0:
        return Path("/run/nvlane-lab")
    session = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
    return session / "nvlane-lab" if session.is_dir() else cache_dir() / "run"


def disk_dir() -> Path:
    """Drives of running labs: gigabytes, so not on the runtime directory's tmpfs. `lab down` removes them."""
    return cache_dir() / "running"
