"""A plan that was refused, as an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nvlane.model.codec import encode
from nvlane.model.errors import Refused
from nvlane.plan.plan import Plan, Refusal


class PlanRefused(Refused):
    """Nothing was changed; `refusals` holds every reason."""

    def __init__(self, name: str, refusals: Sequence[Refusal], lane_name: Callable[[int], str]) -> None:
        count = "1 reason" if len(refusals) == 1 else f"{len(refusals)} reasons"
        lines = [f"{name}: refused, for {count}; nothing was changed"]
        lines += [refusal_text(refusal, lane_name) for refusal in refusals]
        super().__init__("\n".join(lines))
        self.refusals = tuple(refusals)

    def details(self) -> Mapping[str, Any]:
        return {"refusals": encode(self.refusals)}


def refusal_text(refusal: Refusal, lane_name: Callable[[int], str]) -> str:
    """One reason in a few lines: what, why, what would make it safe. A lane of which the name is '' is not named."""
    where = "" if refusal.lane is None else lane_name(refusal.lane)
    lines = [f"  {where + ': ' if where else ''}{refusal.reason}  [{refusal.code}]"]
    lines += [f"    seen: {line}" for line in refusal.evidence]
    lines += [f"    remedy: {refusal.remedy}"] if refusal.remedy else []
    return "\n".join(lines)


def raise_if_refused(plan: Plan, name: str, lane_name: Callable[[int], str]) -> None:
    if plan.refusals:
        raise PlanRefused(name, plan.refusals, lane_name)
