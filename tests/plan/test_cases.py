"""Every file of tests/cases/{machine,emulated,…,attach} is one test; see plan_case for what it holds.

NVLANE_REGENERATE=1 writes the golden files anew: read the difference before it is committed.
"""

from __future__ import annotations

import ast
import functools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from plan_case import Case, case_files, load, rendering

import nvlane
from nvlane.lanes.context import LaneKind
from nvlane.lanes.table import LANES
from nvlane.model.codec import encode
from nvlane.plan import refuse
from nvlane.plan.plan import Plan

REGENERATE = os.environ.get("NVLANE_REGENERATE") == "1"
SOURCE = Path(nvlane.__file__).parent


@functools.cache
def planned(path: Path) -> tuple[Case, Plan]:
    case = load(path)
    return case, case.plan()


@pytest.mark.parametrize("path", case_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_case(path: Path) -> None:
    case, plan = planned(path)
    _compare_refusals(case, plan)
    if plan.refusals:
        assert not plan.steps and not plan.devices and not plan.claims, "a refused plan does nothing"
        assert not case.golden.exists(), f"{case.golden.name} stands beside a case that is refused"
        return
    _compare_patterns("notes", case, [note.text for note in plan.notes])
    _compare_fields("steps", case, [encode(step) for step in plan.steps])
    _compare_fields("claims", case, [encode(claim) for claim in plan.claims])
    if "machine" in case.expect:
        _compare_one("machine", case.expect["machine"], encode(plan.machine))
    _compare_golden(case, rendering(plan, case.attach is not None))


def _compare_refusals(case: Case, plan: Plan) -> None:
    expected = case.expect.get("refusals", [])
    found = "\n".join(f"{r.code} (lane {r.lane}): {r.reason}\n    remedy: {r.remedy}" for r in plan.refusals)
    assert [e["code"] for e in expected] == [r.code for r in plan.refusals], found
    for wanted, refusal in zip(expected, plan.refusals, strict=True):
        assert wanted.get("lane") == refusal.lane, found
        assert re.search(wanted["reason"], refusal.reason), found
        assert re.search(wanted["remedy"], refusal.remedy), found


def _compare_patterns(what: str, case: Case, found: list[str]) -> None:
    if what not in case.expect:
        return
    expected = case.expect[what]
    assert len(expected) == len(found), found
    for pattern, text in zip(expected, found, strict=True):
        assert re.search(pattern, text), found


def _compare_fields(what: str, case: Case, found: list[dict[str, Any]]) -> None:
    if what not in case.expect:
        return
    expected = case.expect[what]
    assert [e["type"] for e in expected] == [f["type"] for f in found], found
    for number, (wanted, have) in enumerate(zip(expected, found, strict=True)):
        _compare_one(f"{what}[{number}]", wanted, have)


def _compare_one(place: str, wanted: Any, have: Any) -> None:
    """Every field that is named has that value; tables may leave fields out."""
    if isinstance(wanted, Mapping):
        for name, value in wanted.items():
            assert name in have, f"{place}.{name}: there is no such field"
            _compare_one(f"{place}.{name}", value, have[name])
    else:
        assert wanted == have, f"{place}: {have!r} instead of {wanted!r}"


def _compare_golden(case: Case, text: str) -> None:
    if REGENERATE:
        case.golden.write_text(text)
    assert case.golden.exists(), f"{case.golden.name} is missing: NVLANE_REGENERATE=1 makes it; then read it"
    assert text == case.golden.read_text(), "the plan changed; NVLANE_REGENERATE=1 accepts it"


def test_every_golden_file_has_its_case() -> None:
    cases = set(case_files())
    orphans = [p for folder in {c.parent for c in cases} for p in folder.glob("*.golden")]
    assert not [p.name for p in orphans if p.with_suffix(".toml") not in cases]


def _callee(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _code_argument(call: ast.Call) -> ast.expr | None:
    return next((k.value for k in call.keywords if k.arg == "code"), call.args[0] if call.args else None)


def _codes_in(path: Path, makers: set[str]) -> Iterator[str]:
    """The codes that a module gives to the makers of refusals."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or _callee(node) not in makers:
            continue
        match _code_argument(node):
            case ast.Constant(value=str(text)):
                yield text
            case ast.Name(id="code"):
                pass  # handed on by a maker: its callers write the code out
            case ast.Subscript(value=ast.Name(id="_USE_CODES")):
                yield from refuse._USE_CODES.values()
            case _:
                raise AssertionError(f"{path.name}:{node.lineno}: a refusal's code must be written out")


def declared_codes() -> set[str]:
    """Every refusal code in lanes and plan."""
    modules = [*(SOURCE / "lanes").glob("*.py"), SOURCE / "plan" / "refuse.py"]
    functions = (n for p in modules for n in ast.walk(ast.parse(p.read_text())) if isinstance(n, ast.FunctionDef))
    makers = {f.name for f in functions if any(a.arg == "code" for a in f.args.args)} | {"Refusal"}
    return {code for path in modules for code in _codes_in(path, makers)}


def test_every_refusal_is_reached_by_a_case() -> None:
    reached = {refusal.code for path in case_files() for refusal in planned(path)[1].refusals}
    missing = declared_codes() - reached
    assert not missing, f"no case in tests/cases is refused with: {', '.join(sorted(missing))}"
    assert not reached - declared_codes()


def test_every_lane_has_cases_that_are_planned_and_refused() -> None:
    for kind in LaneKind:
        assert kind in LANES
        outcomes = {bool(planned(path)[1].refusals) for path in case_files() if path.parent.name == str(kind)}
        assert outcomes == {True, False}, kind
