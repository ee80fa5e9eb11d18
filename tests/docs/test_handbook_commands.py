"""Every nvlane command of the pages is one that nvlane takes, and every spec is one that it reads."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from command_lines import complaint, nvlane_calls
from handbook_pages import ROOT, blocks, commands, pages, prose

import nvlane.lab
from nvlane.model.errors import SpecError
from nvlane.spec.reader import parse_spec


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_commands_of_consoles(page: Path) -> None:
    wrong = [
        f"{command.place}: {words}"
        for block in blocks(page)
        if block.language == "console"
        for command in commands(block)
        for call in nvlane_calls(command.words)
        if (words := complaint(call))
    ]
    assert not wrong


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_commands_that_prose_names(page: Path) -> None:
    """`nvlane VERB --option`, between backticks: the verb and the option are there."""
    wrong = []
    for text in re.findall(r"`(nvlane [^`]+)`", prose(page), re.DOTALL):
        words = [word for word in text.split() if not re.search(r"[…|<>$(]", word)]
        while len(words) > 2 and not re.fullmatch(r"[a-z]+", words[1]):
            words.pop(1)
        if complaint(words[1:], whole=False):
            wrong.append(f"{text}: {complaint(words[1:], whole=False)}")
    assert not wrong


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_specs(page: Path) -> None:
    """A block of TOML is a spec, or lanes of one."""
    wrong = []
    for block in blocks(page):
        if block.language == "toml":
            text = block.text if "[machine]" in block.text else f'[machine]\nname = "vm"\n{block.text}'
            try:
                parse_spec(text, block.place, "/srv/vm")
            except SpecError as error:
                wrong.append(str(error))
    assert not wrong


@pytest.mark.parametrize("page", pages(), ids=_name)
def test_python(page: Path) -> None:
    """A block of Python is some, and what it takes from nvlane.lab is there."""
    for block in blocks(page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text, block.place)):
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("lab", "room"):
                    owner = nvlane.lab if ast.unparse(node.value) == "lab" else nvlane.lab.Lab
                    assert hasattr(owner, node.attr), f"{block.place}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("nvlane plam x.toml", "there is no verb 'plam'"),
        ("sudo nvlane up", "specs is missing"),
        ("nvlane up --no-such x.toml", "No such option"),
        ("nvlane down a --shutdown soon", "'soon' is not a valid float range"),
        ("nvlane target start t0 --frontend ide", "'ide' is not one of"),
        ("nvlane lab run --name x -- nvlane devices --csv", "No such option"),
        ("nvlane devices | nvlane man x", "unexpected arguments"),
        ('eval "$(nvlane completion tcsh)"', "'tcsh' is not one of"),
        ("nvlane fabrics connect d --address 10.0.0.2", "nqn is missing"),
        ("nvlane host", "a verb is missing"),
    ],
)
def test_a_wrong_command_is_found(line: str, words: str) -> None:
    assert words.lower() in " ".join(complaint(call) for call in nvlane_calls(line)).lower()


@pytest.mark.parametrize(
    "line",
    ["sudo nvlane up a.toml  # a comment", "nvlane lab run -- ls --color", "nvlane target rpc t0 x {}", "ls nvlane x"],
)
def test_a_right_command_is_not(line: str) -> None:
    assert not [words for call in nvlane_calls(line) if (words := complaint(call))]
