"""A plan in words: refusals, notes, steps, claims, and the QEMU command, ready to paste."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import Any

from nvlane.apply.launch_qemu import QemuLauncher
from nvlane.apply.operations.launch import FIRST_DESCRIPTOR
from nvlane.cli.service.refused import refusal_text
from nvlane.model.claim import Claim, WriteClaim
from nvlane.model.codec import encode
from nvlane.plan.plan import Plan
from nvlane.plan.step import StartMachine, StartTarget
from nvlane.targets.table import ENGINES

LaneName = Callable[[int], str]


def plan_text(name: str, plan: Plan, lane_name: LaneName) -> str:
    """The plan of one machine, for a person."""
    return "\n".join(_lines(name, plan, lane_name))


def _lines(name: str, plan: Plan, lane_name: LaneName) -> Iterator[str]:
    if plan.refusals:
        yield f"{name}: refused"
        for refusal in plan.refusals:
            yield refusal_text(refusal, lane_name)
        return
    yield f"{name}: {len(plan.steps)} steps, {len(plan.claims)} claims"
    for note in plan.notes:
        yield f"  note: {'' if note.lane is None else lane_name(note.lane) + ': '}{note.text}"
    for number, step in enumerate(plan.steps, 1):
        yield f"  {number:2}. {step.describe()}"
    for lane in dict.fromkeys(claim.lane for claim in plan.claims):
        words = dict.fromkeys(_claim_words(claim) for claim in plan.claims if claim.lane == lane)
        yield f"  verify {lane_name(lane)}: {', '.join(words)}"
    for argv, calls in _processes(plan):
        yield ""
        yield shell_text(argv)
        yield from (f"  # then: {call}" for call in calls)


def commands(plan: Plan) -> tuple[tuple[str, ...], ...]:
    """The command of every process that the plan starts. Descriptors of handed-over sockets are those of the real
    start."""
    return tuple(argv for argv, _ in _processes(plan))


def _processes(plan: Plan) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Each command, and what the process is told over its socket once it runs."""
    for step in plan.steps:
        if isinstance(step, StartMachine):
            yield QemuLauncher().argv(step, _numbers(QemuLauncher().launch(step).sockets)), ()
        elif isinstance(step, StartTarget):
            engine = ENGINES[step.engine]
            yield engine.argv(step, _numbers(engine.launch(step).sockets)), engine.calls(step)


def _numbers(sockets: object) -> dict[str, int]:
    names = list(sockets) if isinstance(sockets, dict) else []
    return {name: FIRST_DESCRIPTOR + index for index, name in enumerate(names)}


def shell_text(argv: tuple[str, ...]) -> str:
    """A command as a shell takes it, an option with its value on each line."""
    lines = [shlex.quote(argv[0])]
    for word in argv[1:]:
        if word.startswith("-"):
            lines.append(f"  {shlex.quote(word)}")
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n".join(lines)


def _claim_words(claim: Claim) -> str:
    if isinstance(claim, WriteClaim):
        return f"write proof ({claim.length} bytes at {claim.offset})"
    name = type(claim).__name__.removesuffix("Claim")
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()


def plan_json(name: str, plan: Plan) -> dict[str, Any]:
    """The plan for a program: everything, and the texts of the steps."""
    value: dict[str, Any] = encode(plan)
    return {
        "machine_name": name,
        "refused": bool(plan.refusals),
        **value,
        "descriptions": [step.describe() for step in plan.steps],
        "commands": [list(argv) for argv in commands(plan)],
    }
