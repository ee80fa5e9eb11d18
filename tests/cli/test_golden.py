"""What people read, as files: every --help, the manual page, plans. NVLANE_REGENERATE=1 writes them anew."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from nvlane.cli.main import cli
from nvlane.cli.man import page
from nvlane.cli.output import Output
from nvlane.cli.verbs import VERBS

ROOT = Path(__file__).parent.parent.parent
GOLDEN = Path(__file__).parent / "golden"
FACTS = ROOT / "tests" / "cases" / "facts" / "server.json"
SPECS = sorted((GOLDEN / "plan").glob("*.toml"))


def _commands() -> Iterator[tuple[str, ...]]:
    """Every verb, and every verb of a verb."""
    context = click.Context(cli)
    for name in VERBS:
        yield (name,)
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((name, inner) for inner in command.list_commands(context))


def _same(path: Path, text: str) -> None:
    if os.environ.get("NVLANE_REGENERATE") == "1":
        path.write_text(text)
    assert path.exists(), f"{path} is missing: NVLANE_REGENERATE=1 writes it"
    assert text == path.read_text(), f"{path.name} is stale: NVLANE_REGENERATE=1 writes it"


def _run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, words, obj=Output(), prog_name="nvlane", standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value or 0, result.stdout


@pytest.mark.parametrize("words", [(), *_commands()], ids=lambda words: "-".join(words) or "nvlane")
def test_help(words: tuple[str, ...]) -> None:
    _, text = _run(*words, "--help")
    _same(GOLDEN / "help" / f"{'-'.join(('nvlane', *words))}.txt", text)


def test_manual_page() -> None:
    _same(ROOT / "docs" / "man" / "nvlane.1", page())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_plan(spec: Path) -> None:
    status, text = _run("plan", str(spec), "--facts", str(FACTS))
    _same(spec.with_suffix(".txt"), text)
    assert status == (3 if spec.stem.startswith("refused") else 0)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.stem)
def test_plan_as_json_says_the_same(spec: Path) -> None:
    status, text = _run("plan", str(spec), "--facts", str(FACTS), "--json")
    (plan,) = json.loads(text)
    assert plan["refused"] == (status == 3)
    assert len(plan["descriptions"]) == len(plan["steps"])
    words = spec.with_suffix(".txt").read_text()
    for description in plan["descriptions"]:
        assert description in words
    for refusal in plan["refusals"]:
        assert refusal["code"] in words
    for command in plan["commands"]:
        assert command[0] in words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    _, text = _run("completion", shell)
    assert f"_NVLANE_COMPLETE={shell}_complete" in text
