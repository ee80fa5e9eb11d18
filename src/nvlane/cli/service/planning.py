"""`plan`: specs and facts, of this host or of a file, to plans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nvlane.cli.service.world import read_for, this_world
from nvlane.facts.shape import Facts
from nvlane.lanes.compose import make_plan
from nvlane.model.codec import decode
from nvlane.model.errors import SpecError
from nvlane.plan.plan import Plan
from nvlane.spec.document import Spec
from nvlane.targets.table import ENGINES


def plans_for(specs: Sequence[Spec], facts_file: str | None) -> tuple[tuple[Spec, Facts, Plan], ...]:
    """Each spec with the facts that it was planned against, and its plan."""
    if facts_file is not None:
        facts = load_facts(facts_file)
        return tuple((spec, facts, make_plan(spec, facts, ENGINES)) for spec in specs)
    world = this_world()
    read = [(spec, read_for(world, spec)) for spec in specs]
    return tuple((spec, facts, make_plan(spec, facts, ENGINES)) for spec, facts in read)


def load_facts(path: str) -> Facts:
    """Facts that `nvlane doctor --facts` saved. Raises SpecError."""
    remedy = "make the file anew: nvlane doctor --facts FILE"
    try:
        return decode(Facts, json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"cannot read it: {error.strerror}", source=path, remedy=remedy) from error
    except ValueError as error:
        raise SpecError(f"holds no facts of this nvlane: {error}", source=path, remedy=remedy) from error
