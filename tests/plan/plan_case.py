"""Plan cases: one TOML file is one test and holds no code.

::

    about = "…"                 what the case shows
    facts = "server"            a host of tests/cases/facts
    spec = '''…'''              as a user writes it; relative paths start at /srv/vm
    attach = 1                  plug this lane into the machine that the other lanes make
    facts_remove = ["path"]     what this host lacks
    [facts_change]              what differs on this host: "path" = value
    [expect]
    refusals = [{ code, lane, reason, remedy }]    all of them; reason and remedy are patterns
    notes = ["pattern"]                            all of them
    steps = [{ type, … }]                          all of them, in order; only the fields that are named
    claims = [{ type, … }]                         likewise
    machine = { … }                                fields of the machine

A path of a fact: `kvm.usable`, `drives[serial=S4EVDATA000002].uses`; one that ends in `[]` adds to a list.
Beside a case that is not refused stands its `.golden` file: the whole plan as text, with QEMU's arguments.
"""

from __future__ import annotations

import functools
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvlane.facts.shape import Facts
from nvlane.lanes.compose import make_attach_plan, make_plan
from nvlane.model.codec import decode, encode
from nvlane.plan.plan import Plan
from nvlane.plan.step import PlugDevices, StartMachine, StartTarget
from nvlane.qemu.hotplug import hot_plug
from nvlane.qemu.render import argv
from nvlane.qemu.syntax import compact
from nvlane.spec.document import Spec
from nvlane.spec.reader import parse_spec
from nvlane.targets.table import ENGINES

CASES = Path(__file__).parents[1] / "cases"
FOLDERS = ("machine", "emulated", "passthrough", "userspace", "vhost-user", "nvdimm", "fabrics", "attach")
DIRECTORY = "/srv/vm"
_KEYS = {"about", "facts", "spec", "attach", "facts_change", "facts_remove", "expect"}
_EXPECT_KEYS = {"refusals", "notes", "steps", "claims", "machine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    path: Path
    spec: Spec
    facts: Facts
    attach: int | None
    expect: Mapping[str, Any]

    @property
    def golden(self) -> Path:
        return self.path.with_suffix(".golden")

    def plan(self) -> Plan:
        if self.attach is None:
            return make_plan(self.spec, self.facts, ENGINES)
        lanes = tuple(lane for index, lane in enumerate(self.spec.lanes) if index != self.attach)
        before = make_plan(Spec(machine=self.spec.machine, lanes=lanes), self.facts, ENGINES)
        assert before.machine is not None, before.refusals
        return make_attach_plan(self.spec, self.attach, self.facts, ENGINES, before.machine)


def case_files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (CASES / folder).glob("*.toml"))


def load(path: Path) -> Case:
    data = tomllib.loads(path.read_text())
    assert not (unknown := data.keys() - _KEYS), f"{path}: unknown keys {unknown}"
    expect = data.get("expect", {})
    assert not (unknown := expect.keys() - _EXPECT_KEYS), f"{path}: unknown keys of expect {unknown}"
    facts = json.loads(_base(data.get("facts", "server")))
    change(facts, data.get("facts_change", {}), data.get("facts_remove", []))
    return Case(
        path=path,
        spec=parse_spec(data["spec"], path.name, DIRECTORY),
        facts=decode(Facts, facts),
        attach=data.get("attach"),
        expect=expect,
    )


@functools.cache
def _base(name: str) -> str:
    """The facts of a named host, as JSON. A host that is like another one says only where it differs."""
    data = json.loads((CASES / "facts" / f"{name}.json").read_text())
    if "like" in data:
        like = json.loads(_base(data["like"]))
        change(like, data.get("facts_change", {}), data.get("facts_remove", []))
        data = like
    return json.dumps(data)


def base_facts(name: str) -> Facts:
    return decode(Facts, json.loads(_base(name)))


def change(facts: Any, changes: Mapping[str, Any], removals: list[str]) -> None:
    for path, value in changes.items():
        owner, name = _owner(facts, path.removesuffix("[]"))
        if path.endswith("[]"):
            owner[name] += value
        else:
            owner[name] = value
    for path in removals:
        owner, name = _owner(facts, path)
        del owner[name]


def _owner(facts: Any, path: str) -> tuple[Any, Any]:
    """The container of what a path names, and its key or index there."""
    parts = re.findall(r"([^.\[\]]+)(?:\[([^=\]]+)=([^\]]*)\])?", path)
    keys: list[Any] = []
    at = facts
    for number, (name, selector, wanted) in enumerate(parts):
        last = number + 1 == len(parts)
        keys.append(name)
        if selector:
            at = at[name]
            index = next((i for i, item in enumerate(at) if str(item[selector]) == wanted), None)
            assert index is not None, f"{path}: nothing has {selector} = {wanted}"
            name = index
        if last:
            return at, name
        at = at[name]
    raise AssertionError(f"{path} names nothing")


def rendering(plan: Plan, attach: bool) -> str:
    """A plan as text for people to review: what is done, and the arguments that come of it."""
    parts = [("notes", [note.text for note in plan.notes])]
    parts.append(("steps", [_step(step) for step in plan.steps]))
    parts.append(("claims", [compact(encode(claim)) for claim in plan.claims]))
    for step in plan.steps:
        match step:
            case StartTarget():
                parts.append((f"{step.engine} {step.name}", _words(ENGINES[step.engine].argv(step, {}))))
                parts.append(("json-rpc", list(ENGINES[step.engine].calls(step))))
            case StartMachine():
                parts.append(("qemu", _words(argv(step.binary, step.machine, step.devices, {}))))
            case PlugDevices():
                commands = [hot_plug(device) for device in step.devices]
                parts.append(("qmp", [f"{c.execute} {compact(c.arguments)}" for c in commands]))
            case _:
                pass
    assert attach == any(isinstance(step, PlugDevices) for step in plan.steps)
    return "\n".join(f"# {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in parts if lines)


def _step(step: Any) -> str:
    fields = encode(step)
    # What a machine is made of is said below, as arguments.
    for name in ("machine", "devices"):
        if isinstance(fields.get(name), dict | list):
            del fields[name]
    return f"{step.describe()}\n    {compact(fields)}"


def _words(arguments: tuple[str, ...]) -> list[str]:
    """One option and its value a line."""
    lines: list[str] = []
    for word in arguments:
        if word.startswith("-") or not lines or not lines[-1].startswith("-") or " " in lines[-1]:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return lines
