"""`nvlane advise` as people and programs meet it. NVLANE_REGENERATE=1 writes the golden files anew."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nvlane.advise.cell import Operation
from nvlane.advise.ways import WAYS
from nvlane.advise.wish import Need
from nvlane.cli.advise import NEEDS
from nvlane.cli.main import cli
from nvlane.cli.output import Output
from nvlane.model.errors import NvlaneError, Refused, SpecError

GOLDEN = Path(__file__).parent / "golden" / "advise"
FACTS = ("--facts", str(Path(__file__).parents[1] / "cases" / "facts" / "server.json"))
#: What is asked, and the exit status.
ASKED = {
    "plain": ((), 0),
    "snapshot-migration": (("--need", "snapshot", "--need", "live-migration"), 0),
    "dense": (("--latency", "--density", "40", "--share-drive"), 0),
    "this-drive": (("--latency", "--drive", "serial:S4EVDATA000002"), 0),
    "too-much": (("--need", "persistent-memory", "--need", "snapshot"), 3),
}


def _run(*words: str) -> Result:
    return CliRunner().invoke(cli, ("advise", *words), obj=Output(), prog_name="nvlane", standalone_mode=False)


def _done(*words: str) -> tuple[int, str]:
    result = _run(*words)
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.stdout


@pytest.mark.parametrize("name", ASKED)
def test_the_words(name: str) -> None:
    words, status = ASKED[name]
    found, text = _done(*words, *FACTS)
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("NVLANE_REGENERATE") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path.name} is stale: NVLANE_REGENERATE=1 writes it"
    assert found == status
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("name", ASKED)
def test_json_says_the_same(name: str) -> None:
    words, status = ASKED[name]
    found, text = _done(*words, *FACTS, "--json")
    assert found == status
    choices = json.loads(text)["choices"]
    said = (GOLDEN / f"{name}.txt").read_text()
    fitting = [choice["lane"] for choice in choices if choice["fits"]]
    assert [line.split()[1].rstrip(":") for line in said.splitlines() if line[:1].isdigit()] == fitting
    for choice in choices:
        assert choice["lane"] in said
        assert all(refusal["code"] in said for refusal in choice["refusals"])


def test_the_spec_alone_can_be_planned(tmp_path: Path) -> None:
    _, text = _done("--latency", "--spec", *FACTS)
    spec = tmp_path / "best.toml"
    spec.write_text(text)
    planned = CliRunner().invoke(cli, ("plan", str(spec), *FACTS), obj=Output(), standalone_mode=False)
    assert planned.exception is None
    assert not planned.return_value
    assert text in (GOLDEN / "plain.txt").read_text() or 'kind = "passthrough' in text


def test_the_spec_of_another_way() -> None:
    assert 'kind = "emulated"' in _done("emulated", "--spec", *FACTS)[1]


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (("passthrou",), SpecError, "passthrough"),
        (("--drive", "nonsense"), SpecError, "names no drive"),
        (("--size", "5GB"), SpecError, "5GiB"),
        (("--name", "no name"), SpecError, "machine.name"),
        (("--spec", "--need", "persistent-memory", "--need", "snapshot"), Refused, "no lane does all of that"),
        (("fabrics", "--spec"), Refused, "fabrics is not possible"),
    ],
    ids=["lane", "drive", "size", "name", "nothing fits", "not possible"],
)
def test_what_makes_no_sense_or_cannot_be_is_said(words: tuple[str, ...], error: type[NvlaneError], said: str) -> None:
    with pytest.raises(error, match=said):
        _done(*words, *FACTS)


def test_the_matrix_in_three_forms() -> None:
    value = json.loads(_done("--matrix", "--json")[1])
    assert [lane["name"] for lane in value["lanes"]] == [way.name for way in WAYS]
    assert set(value["operations"]) == set(Operation)
    assert _done("--matrix", "--markdown")[1] == (Path(__file__).parents[2] / "docs" / "lanes.md").read_text()
    (one,) = json.loads(_done("--matrix", "userspace", "--json")[1])["lanes"]
    for cell in one["cells"].values():
        assert cell["why"] in _done("--matrix", "userspace")[1]


def test_the_option_knows_every_need() -> None:
    assert set(NEEDS) == set(Need)
