"""The matrix of lanes: whole, with evidence that exists, and as docs/lanes.md has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvlane.advise import table
from nvlane.advise.cell import MEANING, Answer, Cell, Operation, Way
from nvlane.advise.matrix import cell
from nvlane.advise.ways import WAYS
from nvlane.model.errors import Bug
from nvlane.spec.lane import LaneKind

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "lanes.md"
CELLS = [(way, operation, cell(way, operation)) for way in WAYS for operation in Operation]


def test_every_lane_is_in_it() -> None:
    assert {way.kind for way in WAYS} == set(LaneKind)
    assert len({way.name for way in WAYS}) == len({way.short for way in WAYS}) == len(WAYS)
    assert set(MEANING) == set(Operation)


def test_what_is_not_proven_says_so_and_what_is_cites_a_test() -> None:
    for way, operation, found in CELLS:
        assert (found.answer is Answer.UNPROVEN) != bool(found.evidence), (way.name, operation)
        assert found.why and not found.why.endswith("."), (way.name, operation)


@pytest.mark.parametrize(("answer", "evidence"), [(Answer.YES, ()), (Answer.NO, ()), (Answer.UNPROVEN, ("a test",))])
def test_an_answer_without_evidence_cannot_be_written(answer: Answer, evidence: tuple[str, ...]) -> None:
    with pytest.raises(Bug):
        Cell(answer=answer, why="so it is said", evidence=evidence)


def test_every_test_that_is_cited_exists() -> None:
    """As pytest collects them: a test that was renamed takes its cells along, or this fails."""
    cited = {test for _, _, found in CELLS for test in found.evidence}
    assert len(cited) > 80
    files = sorted({test.partition("::")[0] for test in cited})
    collect = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "-p", "no:cacheprovider", *files]
    done = subprocess.run(collect, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert cited - set(done.stdout.splitlines()) == set()


def test_a_cell_cites_tests_of_its_own_way() -> None:
    """A test that is made for each way is cited by that way and by no other."""
    names = {way.name for way in WAYS}
    for way, operation, found in CELLS:
        for test in found.evidence:
            about = test.partition("[")[2].rstrip("]")
            if "test_matrix" in test:
                of = max((name for name in names if about == name or about.startswith(f"{name}-")), key=len)
                shared = "test_nvlane_target_has_no_block_jobs" in test and way.kind is LaneKind.VHOST_USER
                assert of == way.name or shared, (way.name, operation, test)


def test_the_page_is_made_of_it() -> None:
    if os.environ.get("NVLANE_REGENERATE") == "1":
        PAGE.write_text(table.markdown())
    assert PAGE.read_text() == table.markdown(), "docs/lanes.md is stale: NVLANE_REGENERATE=1 writes it"


def test_the_table_fits_a_terminal() -> None:
    lines = table.text_table().splitlines()
    assert max(map(len, lines)) < 80
    for operation in Operation:
        (line,) = [line for line in lines if line.startswith(f"{operation} ")]
        assert line.split()[1:] == [table.SIGN[cell(way, operation).answer] for way in WAYS]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_words_of_a_way_name_all_its_evidence(way: Way) -> None:
    text = table.text_of(way)
    for operation in Operation:
        assert operation in text
        for test in cell(way, operation).evidence:
            assert test in text
