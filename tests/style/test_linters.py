"""Linters are tests: one command runs everything, and nobody forgets."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT


def _run(*argv: str | Path) -> None:
    done = subprocess.run([str(word) for word in argv], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_ruff() -> None:
    _run(sys.executable, "-m", "ruff", "check", "--output-format=concise", "src", "tests")


def test_mypy() -> None:
    _run(sys.executable, "-m", "mypy")


@pytest.mark.skipif(shutil.which("cargo") is None, reason="no cargo on this machine")
@pytest.mark.parametrize(
    "arguments", [("fmt", "--check"), ("clippy", "--quiet", "--all-targets", "--locked", "--", "-D", "warnings")]
)
def test_cargo(arguments: tuple[str, ...]) -> None:
    _run("cargo", *arguments)
