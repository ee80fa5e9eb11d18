"""What `down`, `restore` and `host reset` have in common: undoing runs, and saying what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvlane.apply.operations.operation import Fate
from nvlane.apply.store import HOST_RUN
from nvlane.cli.output import Output
from nvlane.cli.progress import Lines
from nvlane.cli.service.down import WentDown, take_down
from nvlane.cli.service.runs import RunState, look_at
from nvlane.cli.service.world import World, this_world
from nvlane.model.codec import encode


def take_all_down(output: Output, names: Sequence[str] | None, *, shutdown: float) -> int:
    """Undo these runs, or (None) those of all machines that are up. The exit status."""
    world = this_world()
    if names is None:
        names = [name for name in world.store.names() if name != HOST_RUN and _is_up(world, name)]
    return undo_runs(output, world, names, shutdown=shutdown)


def _is_up(world: World, name: str) -> bool:
    seen = look_at(world, name)
    return seen.state is RunState.UP and seen.record is not None


def undo_runs(output: Output, world: World, names: Sequence[str], *, shutdown: float) -> int:
    """Undo runs one after the other. 5: something could not be put back; 4: a proof was not read; else 0."""
    results = []
    for name in names:
        output.say(name)
        with Lines(output) as tell:
            results.append(take_down(world, name, tell, shutdown=shutdown))
        _say(output, results[-1])
    if output.json:
        output.data([_json(result) for result in results], str)
    if any(result.report.failed for result in results):
        return 5
    return 4 if any(not piece.ok for result in results for piece in result.proofs) else 0


def _say(output: Output, went: WentDown) -> None:
    for step in went.report.failed:
        output.warn(f"  not put back: {step.text}: {step.outcome.why}")
        if step.outcome.remedy:
            output.warn(f"    remedy: {step.outcome.remedy}")
    if went.report.failed:
        output.warn(f"{went.name}: the host is not as it was; nvlane restore {went.name} tries again")
    else:
        output.say(f"{went.name}: the host is as it was")


def _json(went: WentDown) -> dict[str, Any]:
    return {
        "machine": went.name,
        "restored": not went.report.failed,
        "steps": [
            {"n": step.n, "text": step.text, "fate": str(step.outcome.fate), "why": step.outcome.why}
            for step in went.report.steps
        ],
        "kept": [step.text for step in went.report.steps if step.outcome.fate is Fate.KEPT],
        "proofs": [encode(piece) for piece in went.proofs],
    }
