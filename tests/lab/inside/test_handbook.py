"""The sessions of the handbook are true: their commands are run here, and print what the pages have."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
from at_work import nvlane, unchanged

from nvlane.apply import process

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))
from handbook_pages import DOCS, handbook
from page_session import in_directory, play, session

pytestmark = pytest.mark.lab

PAGES = [page for page in handbook() if [*session(page)]]


def shell(words: str) -> tuple[int, str]:
    """nvlane in this process, where a new Python takes seconds; everything else by the shell."""
    argv = shlex.split(words)
    if argv[0] == "nvlane":
        said = nvlane(*argv[1:])
        return said.status, said.err + said.out
    done = process.run(["sh", "-c", words], timeout=60, check=False)
    return done.returncode, done.stderr + done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_session(page: Path, tmp_path: Path) -> None:
    with unchanged():
        differences = [str(difference) for difference in play(page, tmp_path, in_directory(tmp_path, shell))]
        nvlane("down", "--all")
    assert not differences, "\n\n".join(differences)
