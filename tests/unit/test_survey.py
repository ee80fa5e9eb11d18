"""`nvlane doctor`: every lane is tried against the facts, and its own refusals are the answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from nvlane.cli.service.survey import Trial, survey
from nvlane.facts.shape import Facts
from nvlane.model.codec import decode
from nvlane.spec.lane import LaneKind

FACTS = Path(__file__).parent.parent / "cases" / "facts"


@pytest.fixture
def facts() -> Facts:
    return decode(Facts, json.loads((FACTS / "server.json").read_text()))


def _lane(trials: tuple[Trial, ...], lane: str) -> list[Trial]:
    return [trial for trial in trials if trial.lane == lane]


def test_every_lane_is_tried(facts: Facts) -> None:
    assert {trial.lane for trial in survey(facts)} == {str(kind) for kind in LaneKind}


def test_a_server_can_do_all(facts: Facts) -> None:
    (whole,) = _lane(survey(facts), "passthrough")
    assert whole.possible
    assert "0000:04:00.0" in whole.drives
    used = {str(drive.address) for drive in facts.drives if drive.uses}
    assert not used & set(whole.drives)


def test_a_host_without_drives_says_what_else_it_lacks(facts: Facts) -> None:
    bare = dataclasses.replace(facts, drives=(), functions=(), iommu="")
    (whole,) = _lane(survey(bare), "passthrough")
    assert not whole.possible
    assert {refusal.code for refusal in whole.refusals} == {"no-drive", "no-iommu"}
    assert all(trial.possible for trial in _lane(survey(bare), "emulated"))


def test_a_qemu_that_lacks_the_nvme_device(facts: Facts) -> None:
    assert facts.qemu is not None
    devices = {name: properties for name, properties in facts.qemu.devices.items() if name != "nvme"}
    lean = dataclasses.replace(facts, qemu=dataclasses.replace(facts.qemu, devices=devices))
    for trial in _lane(survey(lean), "emulated"):
        assert "qemu-lacks-device" in {refusal.code for refusal in trial.refusals}
        assert all(refusal.remedy for refusal in trial.refusals)
