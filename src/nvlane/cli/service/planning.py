"""`plan`: specs and facts, of this host or of a file, to plans."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from nvlane.cli.service.world import read_for, this_world
from nvlane.facts.shape import Facts, PathFacts
from nvlane.lanes.compose import make_plan
from nvlane.lanes.subjects import paths
from nvlane.model.codec import decode
from nvlane.model.errors import SpecError
from nvlane.plan.plan import Plan
from nvlane.spec.document import Spec
from nvlane.targets.table import ENGINES


def plans_for(specs: Sequence[Spec], facts_file: str | None) -> tuple[tuple[Spec, Facts, Plan], ...]:
    """Each spec with the facts that it was planned against, and its plan."""
    for spec in specs:
        if spec.machine.connect:
            message = "is a libvirt domain's, of which the definition is planned"
            remedy = f"nvlane up --print-diff {spec.source} shows it"
            raise SpecError(message, place="machine.connect", source=spec.source, remedy=remedy)
    if facts_file is not None:
        loaded = load_facts(facts_file)
        told = [(spec, _suppose(spec, loaded)) for spec in specs]
        return tuple((spec, facts, make_plan(spec, facts, ENGINES)) for spec, facts in told)
    world = this_world()
    read = [(spec, read_for(world, spec)) for spec in specs]
    return tuple((spec, facts, make_plan(spec, facts, ENGINES)) for spec, facts in read)


def _suppose(spec: Spec, facts: Facts) -> Facts:
    """Facts of another host do not tell of every path of a spec: what is booted is taken to be there, and what a lane
    names to be still absent. Each supposition is said."""
    told = {seen.path for seen in facts.paths}
    booted = {spec.machine.image, spec.machine.kernel, spec.machine.initrd}
    missing = [path for path in paths(spec) if path not in told]
    supposed = tuple(
        PathFacts(path=path, kind="file" if path in booted else "absent", free_space=1 << 62, filesystem="ext4")
        for path in missing
    )
    words = tuple(
        f"{path}: these facts do not tell of it; it is taken {'to be there' if path in booted else 'to be absent'} "
        "(nvlane doctor --facts FILE SPEC on that host tells)"
        for path in missing
    )
    return dataclasses.replace(facts, paths=(*facts.paths, *supposed), unknown=(*facts.unknown, *words))


def load_facts(path: str) -> Facts:
    """Facts that `nvlane doctor --facts` saved. Raises SpecError."""
    remedy = "make the file anew: nvlane doctor --facts FILE"
    try:
        return decode(Facts, json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise SpecError(f"cannot read it: {error.strerror}", source=path, remedy=remedy) from error
    except ValueError as error:
        raise SpecError(f"holds no facts of this nvlane: {error}", source=path, remedy=remedy) from error
