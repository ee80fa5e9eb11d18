"""Every file of tests/cases/spec says in its first line what must come of it: `# ok`, or `# error: TEXT`."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvlane.model.errors import SpecError
from nvlane.spec.declaration import declared, lane_classes, tables
from nvlane.spec.reader import parse_spec
from nvlane.spec.rules import across, emulated, fabrics, machine, nvdimm, userspace, vhost_user
from nvlane.spec.schema import json_schema

CASES = sorted((Path(__file__).parent.parent / "cases" / "spec").glob("*.toml"))
GOOD = [case for case in CASES if case.name.startswith("ok-")]


def _header(case: Path) -> tuple[str, str]:
    kind, _, text = case.read_text().split("\n", 1)[0].removeprefix("# ").strip().partition(": ")
    return kind, text


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_case(case: Path) -> None:
    kind, fragment = _header(case)
    text = case.read_bytes().decode()
    if kind == "ok":
        parse_spec(text, case.name, "/specs")
        return
    assert kind == "error"
    assert fragment
    with pytest.raises(SpecError) as caught:
        parse_spec(text, case.name, "/specs")
    assert fragment in caught.value.message
    assert caught.value.message.startswith(f"{case.name}:")


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.stem)
def test_the_schema_takes_what_the_reader_takes(case: Path) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(tomllib.loads(case.read_bytes().decode()))


def test_every_key_is_in_some_good_case() -> None:
    """Coverage of the domain: a key that no case uses may as well be broken."""
    used: set[str] = set()
    for case in GOOD:
        data = tomllib.loads(case.read_bytes().decode())
        used.update(_keys_used(tables()["Machine"], data["machine"]))
        for lane in data.get("lane", []):
            used.update(_keys_used(lane_classes()[lane.pop("kind")], lane))
    wanted = {f"{name}.{key}" for name, table in tables().items() for key in declared(table)}
    assert used == wanted


def _keys_used(table: type, data: dict[str, Any]) -> Iterator[str]:
    for name, value in data.items():
        yield f"{table.__name__}.{name}"
        key = declared(table)[name]
        inner = key.item or key.hint
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            for item in value if isinstance(value, list) else [value]:
                yield from _keys_used(inner, item)


def test_every_rule_has_a_bad_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule, taken away, lets at least one bad case through, or some other rule alone would do."""
    bad = [case for case in CASES if _header(case)[0] == "error"]
    for module in (machine, across, emulated, userspace, vhost_user, nvdimm, fabrics):
        for rule in module.RULES:
            with monkeypatch.context() as patch:
                patch.setattr(module, "RULES", tuple(other for other in module.RULES if other is not rule))
                assert any(_fails_otherwise(case) for case in bad), f"no case needs {rule.__name__}"


def _fails_otherwise(case: Path) -> bool:
    try:
        parse_spec(case.read_bytes().decode(), case.name, "/specs")
    except SpecError as error:
        return _header(case)[1] not in error.message
    return True
