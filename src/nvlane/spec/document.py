"""A whole spec: one machine and its lanes."""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.spec.lane import Lane
from nvlane.spec.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One spec file, parsed. `source` is its path, '' for one made in memory."""

    machine: Machine
    lanes: tuple[Lane, ...] = ()
    source: str = ""

    def lane_name(self, index: int) -> str:
        """The name of a lane: its own, or kind and number ('vhost-user1')."""
        lane = self.lanes[index]
        return lane.name or f"{lane.KIND}{index}"

    def lane_id(self, index: int) -> str:
        """A prefix for QEMU ids of this lane: letters, digits, '-' only, starting with a letter."""
        name = self.lane_name(index)
        return name if name[0].isalpha() else f"lane-{name}"
