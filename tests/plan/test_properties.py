"""What holds for every plan, whatever the spec and the host."""

from __future__ import annotations

import dataclasses
import json
import typing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plan_case import base_facts, case_files, load
from random_specs import specs

from nvlane.apply.launchers import default_launchers
from nvlane.apply.operations.table import operations
from nvlane.facts.shape import Facts
from nvlane.lanes import subjects
from nvlane.lanes.compose import make_attach_plan, make_plan
from nvlane.model.codec import decode, encode
from nvlane.plan import step as steps
from nvlane.plan.block_step import BlockStep
from nvlane.plan.domain_step import DomainStep
from nvlane.plan.fabrics_step import LinkConfigNode, MakeConfigNode, MountConfigfs
from nvlane.plan.migrate_step import MigrateStep
from nvlane.plan.plan import Plan
from nvlane.plan.step import StartMachine, StartTarget
from nvlane.qemu.render import argv
from nvlane.spec.document import Spec
from nvlane.targets.table import ENGINES

HOSTS = ("server", "laptop", "lean-qemu", "debian12")
FACTS = {name: base_facts(name) for name in HOSTS}
hosts_and_specs = st.one_of([st.tuples(st.just(facts), specs(facts)) for facts in FACTS.values()])
patient = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


def text_of(plan: Plan) -> str:
    return json.dumps(encode(plan))


@patient
@given(hosts_and_specs)
def test_a_plan_is_made_for_every_valid_spec(drawn: tuple[Facts, Spec]) -> None:
    """It never raises; it is refused and empty, or can be rendered; and it is byte-equal the next time."""
    facts, spec = drawn
    plan = make_plan(spec, facts, ENGINES)
    assert text_of(plan) == text_of(make_plan(spec, facts, ENGINES))
    assert text_of(decode(Plan, json.loads(text_of(plan)))) == text_of(plan)
    if plan.refusals:
        assert (plan.machine, plan.steps, plan.devices, plan.claims) == (None, (), (), ())
        assert all(refusal.code and refusal.reason and refusal.remedy for refusal in plan.refusals)
        return
    assert isinstance(plan.steps[-1], StartMachine), "everything is there when QEMU starts"
    _check_rendering(plan)


def _check_rendering(plan: Plan) -> None:
    assert plan.machine is not None
    arguments = argv("qemu", plan.machine, plan.devices, {})
    ids = [json.loads(word).get("id") for word in arguments if word.startswith("{") and '"id"' in word]
    assert len(ids) == len(set(ids)), "every id is unique"
    for target in plan.steps:
        if isinstance(target, StartTarget):
            assert target.export.socket in " ".join(arguments), "both ends name one socket"
            assert plan.machine.needs.shared, "a target reaches shared memory only"


@patient
@given(hosts_and_specs)
def test_a_lane_that_is_attached_never_raises(drawn: tuple[Facts, Spec]) -> None:
    facts, spec = drawn
    if not spec.lanes:
        return
    before = make_plan(Spec(machine=spec.machine, lanes=spec.lanes[:-1]), facts, ENGINES)
    if before.machine is None:
        return
    plan = make_attach_plan(spec, len(spec.lanes) - 1, facts, ENGINES, before.machine)
    assert bool(plan.refusals) != bool(plan.steps)
    assert not any(isinstance(step, StartMachine) for step in plan.steps)


@patient
@given(hosts_and_specs)
def test_a_plan_needs_no_paths_but_those_that_its_spec_names(drawn: tuple[Facts, Spec]) -> None:
    """Facts are read for `subjects.paths`: a lane that looked at another path would find it unread on a real host."""
    facts, spec = drawn
    wanted = subjects.paths(spec)
    fewer = dataclasses.replace(facts, paths=tuple(path for path in facts.paths if path.path in wanted))
    assert text_of(make_plan(spec, fewer, ENGINES)) == text_of(make_plan(spec, facts, ENGINES))
    assert set(subjects.content_paths(spec)) <= set(wanted)


@pytest.mark.parametrize("name", HOSTS)
def test_facts_survive_json(name: str) -> None:
    assert decode(Facts, json.loads(json.dumps(encode(FACTS[name])))) == FACTS[name]


def test_every_step_can_be_done_and_undone() -> None:
    """A new kind of step that nobody does, or an inverse that nobody knows, is found here and not on a host."""
    table = operations(default_launchers())
    assert set(table.forward) == set(typing.get_args(steps.Step))
    assert set(table.back) == set(typing.get_args(steps.Inverse))


def test_steps_survive_the_journal() -> None:
    seen = set[type]()
    for path in case_files():
        for step in load(path).plan().steps:
            seen.add(type(step))
            assert decode(steps.Step, json.loads(json.dumps(encode(step)))) == step  # type: ignore[arg-type]
    # Hugetlbfs is `nvlane host`'s, the Target's half of a fabric `nvlane fabrics export`'s (test_export).
    others = {steps.MountHugetlbfs, MountConfigfs, MakeConfigNode, LinkConfigNode}
    others |= set(typing.get_args(DomainStep))  # of tests/libvirtd
    # Of machines that run: tests/cli/test_disk_work.py and test_migrate_verb.py.
    others |= {*typing.get_args(BlockStep), *typing.get_args(MigrateStep)}
    assert seen >= set(typing.get_args(steps.Step)) - others
