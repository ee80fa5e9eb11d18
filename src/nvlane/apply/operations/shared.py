"""Things that several runs may need at once: each run that needs one journals it, and the last to end takes it away."""

from __future__ import annotations

from nvlane.apply.operations.found import FoundShared
from nvlane.apply.operations.module import Others
from nvlane.apply.operations.operation import Outcome, kept


def look_for(name: str, there: bool, others: Others) -> FoundShared:
    """What is there only because another run made it counts as missing."""
    return FoundShared(name=name, missing=not there or name in others())


def needed_by_another(name: str, others: Others) -> Outcome | None:
    run = others().get(name)
    return kept(f"the run '{run}' needs it too") if run else None
