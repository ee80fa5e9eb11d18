"""nvlane as a program: a process of its own, with state and runtime directories of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class Program:
    """Runs `nvlane` with everything that it leaves below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.runtime = directory / "run"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NVLANE_")},
            "NVLANE_STATE_DIR": str(self.state),
            "NVLANE_RUNTIME_DIR": str(self.runtime),
            "XDG_CACHE_HOME": str(directory / "cache"),
        }

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "nvlane", *words]

    def __call__(
        self, *words: str, stdin: str = "", timeout: float = 120.0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(*words),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd=self.directory,
            env={**self.environment, **environment},
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start it, with pipes, and do not wait."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            self.argv(*words), stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=self.directory, env=self.environment
        )
