"""Rules of a userspace lane."""

from __future__ import annotations

from nvlane.spec.lane import Userspace
from nvlane.spec.problem import Problem, Problems


def proof_can_be_written(lane: Userspace, place: str) -> Problems:
    """`write_proof` needs a lane that the guest may write."""
    if lane.write_proof and lane.read_only:
        yield Problem(
            place=f"{place}.write_proof",
            message="the lane is read-only",
            remedy="drop write_proof or read_only",
        )


RULES = (proof_can_be_written,)
