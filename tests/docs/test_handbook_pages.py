"""The handbook hangs together: each page is in the contents, each link leads somewhere, each block says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from handbook_pages import DOCS, ROOT, anchors, blocks, commands, handbook, pages, prose

#: What a fenced block may be. Without a word it is a picture, a line of a golden file, or what a program printed.
LANGUAGES = {"", "console", "toml", "python", "json", "xml", "{toctree}", "{include}"}


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = {
        (page.parent / name).with_suffix(".md").resolve()
        for page in handbook()
        for block in blocks(page)
        if block.language == "{toctree}"
        for name in block.text.splitlines()
        if name and not name.startswith(":")
    }
    missing = {*handbook()} - listed - {DOCS / "index.md"}
    assert not missing, f"add to a toctree of docs/index.md: {sorted(map(_name, missing))}"
    assert not listed - {*handbook()}


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert not wrong


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_pictures_are_svg_with_words_for_those_who_do_not_see_them(page: Path) -> None:
    for words, path in re.findall(r"!\[([^]]*)\]\(([^)]+)\)", prose(page)):
        assert len(words.split()) > 3, path
        text = (page.parent / path).read_text()
        assert path.endswith(".svg")
        assert "prefers-color-scheme: dark" in text, f"{path} has the colours of one background only"
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), f"{path} fetches something"


@pytest.mark.parametrize("page", handbook(), ids=_name)
def test_commands_stand_in_consoles(page: Path) -> None:
    """Commands are marked in one way, so that they can be found and checked."""
    for block in blocks(page):
        assert (block.language.split() or [""])[0] in LANGUAGES, block.place
        if block.language == "console":
            assert [*commands(block)], f"{block.place} has no prompt ($ or #)"
            first = block.text.splitlines()[0]
            assert first.startswith(("$ ", "# ")), f"{block.place} begins with output"
        else:
            assert not re.search(r"^(\$ |(sudo )?nvlane )", block.text, re.MULTILINE), f"{block.place} has commands"
        if block.mark:
            assert (block.mark == "run") == (block.language == "console"), block.place
