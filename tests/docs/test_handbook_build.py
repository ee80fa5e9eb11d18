"""Sphinx makes the handbook without a warning: no dead link, no page outside the contents, no missing heading."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from handbook_pages import DOCS, handbook


def test_the_handbook_builds(tmp_path: Path) -> None:
    options = ["-q", "-W", "--keep-going", "-b", "html", "-d", str(tmp_path / "doctrees")]
    argv = [sys.executable, "-m", "sphinx", *options, str(DOCS), str(tmp_path / "html")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-6000:]
    made = {str(path.relative_to(tmp_path / "html").with_suffix(".md")) for path in (tmp_path / "html").rglob("*.html")}
    assert made >= {str(page.relative_to(DOCS)) for page in handbook()}
