"""The sessions of the handbook are true: their commands are run here, and print what the pages have."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from pathlib import Path

import pytest
from at_work import nvlane, unchanged

from nvlane.apply import process
from nvlane.cli.main import run

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from handbook_pages import DOCS, handbook
from page_session import in_directory, play, session

pytestmark = pytest.mark.lab

PAGES = [page for page in handbook() if [*session(page)]]


def shell(words: str) -> tuple[int, str]:
    """nvlane in this process, where a new Python takes seconds; everything else by the shell. What both streams get is
    in one text, as on a terminal."""
    argv = shlex.split(words)
    if argv[0] != "nvlane":
        done = process.run(["sh", "-c", words], timeout=60, check=False)
        return done.returncode, done.stderr + done.stdout
    printed, status = io.StringIO(), 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            run(argv[1:])
        except SystemExit as end:
            status = int(end.code or 0)
    return status, printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_session(page: Path, tmp_path: Path) -> None:
    with unchanged():
        # What comes after a difference follows from it: a guest that did not come up is not asked once more.
        difference = next(play(page, tmp_path, in_directory(tmp_path, shell)), None)
        nvlane("down", "--all")
        nvlane("restore")
    assert difference is None, str(difference)
