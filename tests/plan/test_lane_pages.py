"""The pages of the lanes say what is true: their arguments are lines of golden files, their codes and keys exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from plan_case import CASES
from test_cases import declared_codes

from nvlane.spec.declaration import declared, lane_classes

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {kind: DOCS / "lanes" / f"{kind}.md" for kind in lane_classes()}


def _section(text: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"there is no section '{heading}'"
    return found[1]


@pytest.mark.parametrize("kind", PAGES)
def test_arguments_are_lines_of_the_golden_files_that_a_page_names(kind: str) -> None:
    text = PAGES[kind].read_text()
    named = set(re.findall(r"`tests/cases/([a-z0-9/-]+\.golden)`", text))
    assert named
    lines = {line for name in named for line in (CASES / name).read_text().splitlines()}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1:]  # the first is the picture
    shown = [line for language, block in blocks if not language for line in block.splitlines()]
    assert shown
    assert not [line for line in shown if line not in lines]


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_names_every_key_of_its_lane(kind: str) -> None:
    section = _section(PAGES[kind].read_text(), "Keys")
    named = {
        word for row in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)
    }
    assert named == set(declared(lane_classes()[kind]))


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_names_only_refusals_that_there_are(kind: str) -> None:
    section = _section(PAGES[kind].read_text(), "What it refuses")
    named = {
        code for row in re.findall(r"^\| ([^|]+) \|", section, re.MULTILINE) for code in re.findall(r"`([^`]+)`", row)
    }
    assert named
    assert not named - declared_codes()


def test_the_links_of_the_pages_lead_somewhere() -> None:
    for page in (DOCS / "index.md", *PAGES.values()):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
