"""Limits that a program is started with."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from nvlane.apply import process

pytestmark = pytest.mark.lab


def test_a_limit_is_the_child_s_alone(tmp_path: Path) -> None:
    """Whatever is started later, a libvirtd too, has the limits that this process was started with."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    wanted = before[1] + 4096
    pid = process.spawn(["sleep", "60"], log=tmp_path / "log", memlock=wanted)
    try:
        assert resource.prlimit(pid, resource.RLIMIT_MEMLOCK) == (wanted, wanted)
        assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == before
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
