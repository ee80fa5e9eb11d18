"""Rules over more than one key, each a function in `rules/`; the documentation prints their docstrings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from nvlane.spec.document import Spec
from nvlane.spec.lane import Emulated, Fabrics, Nvdimm, Passthrough, Userspace, VhostUser
from nvlane.spec.problem import Problem, Problems
from nvlane.spec.rules import across, emulated, fabrics, machine, nvdimm, userspace, vhost_user


def check(spec: Spec) -> Iterator[Problem]:
    """What is wrong with a spec that reads well: the machine, each lane, the lanes together."""
    for rule in machine.RULES:
        yield from rule(spec)
    for index in range(len(spec.lanes)):
        yield from _check_lane(spec, index)
    for rule in across.RULES:
        yield from rule(spec)


def _check_lane(spec: Spec, index: int) -> Problems:
    lane, place = spec.lanes[index], f"lane[{index}]"
    match lane:
        case Emulated():
            for emulated_rule in emulated.RULES:
                yield from emulated_rule(lane, place)
        case Userspace():
            for userspace_rule in userspace.RULES:
                yield from userspace_rule(lane, place)
        case VhostUser():
            for vhost_rule in vhost_user.RULES:
                yield from vhost_rule(lane, place)
        case Nvdimm():
            for nvdimm_rule in nvdimm.RULES:
                yield from nvdimm_rule(lane, place)
        case Fabrics():
            for fabrics_rule in fabrics.RULES:
                yield from fabrics_rule(lane, place)
        case Passthrough():
            return
        case _:
            assert_never(lane)


def check_together(specs: Sequence[Spec]) -> Iterator[tuple[int, Problem]]:
    """What is wrong with several specs that are each right: (index of the spec, problem)."""
    machines: dict[str, int] = {}
    for index, spec in enumerate(specs):
        first = machines.setdefault(spec.machine.name, index)
        if first != index:
            message = f"{specs[first].source} has a machine '{spec.machine.name}' too"
            yield (
                index,
                Problem(place="machine.name", message=message, remedy="give each machine a name of its own"),
            )
    claims = (claim for index, spec in enumerate(specs) for claim in across.drive_claims(spec, index))
    for (owner, first_place, _), (index, place, drive) in across.drive_clashes(claims):
        if owner != index:
            message = f"{specs[owner].source} gives {drive} away too ({first_place})"
            yield index, Problem(place=place, message=message, remedy="give a drive to one machine only")
