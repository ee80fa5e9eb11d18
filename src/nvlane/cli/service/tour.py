"""The demo's tour, on the host that it runs on: each halt is brought up, verified, taken down, and read back.

It yields events as plain JSON values, for the demo runs it inside the lab and shows it outside.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from nvlane.apply.snapshot import HostSnapshot, differences, host_snapshot
from nvlane.cli.service.domain_up import bring_up_domain
from nvlane.cli.service.down import take_down
from nvlane.cli.service.tour_target import target_host
from nvlane.cli.service.up import CameUp, SpecFile, bring_up
from nvlane.cli.service.world import World
from nvlane.lab import libvirtd
from nvlane.lab.tour import WORK, Halt
from nvlane.model.claim import Evidence
from nvlane.model.errors import Bug, NvlaneError
from nvlane.plan.plan import Plan

Event = Mapping[str, Any]
#: Seconds that a guest may take to boot: its processor is emulated twice over.
GUEST_DEADLINE = 180.0


class _Events:
    """Implements `service.tell.Tell`: what happens becomes events."""

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self._emit = emit

    def begins(self, index: int, total: int, text: str) -> None:  # noqa: ARG002 - Progress names them
        self._emit({"event": "doing", "text": text})

    def ends(self, index: int, total: int, text: str, why: str) -> None: ...

    def phase(self, words: str) -> None:
        self._emit({"event": "doing", "text": words})

    def notes(self, plan: Plan) -> None:
        for note in plan.notes:
            self._emit({"event": "note", "text": note.text})

    def evidence(self, piece: Evidence, lane: str) -> None: ...


def take_tour(world: World, halts: Iterable[Halt], emit: Callable[[Event], None], *, connect: str = "") -> bool:
    """All halts, one after the other, with `connect` on libvirt domains. True when every claim was true and the host
    was as before after each halt."""
    good = True
    with libvirtd.daemons() if connect else nullcontext():
        for halt in halts:
            emit({"event": "halt", "name": halt.name, "text": f"{halt.lane}, {halt.variant}"})
            before = _snapshot(world)
            result = _halt(world, halt, emit, connect)
            changed = differences(before, _snapshot(world))
            good &= result["verified"] and not changed
            emit({"event": "done", "name": halt.name, "result": result, "differences": list(changed)})
    return good


def _snapshot(world: World) -> HostSnapshot:
    return host_snapshot(world.host, str(world.store.state), str(world.store.runtime))


def _halt(world: World, halt: Halt, emit: Callable[[Event], None], connect: str) -> dict[str, Any]:
    """One machine from its spec to the host as it was; an error is evidence that something is not as it should be."""
    begin = time.monotonic()
    evidence: list[Evidence] = []
    tell = _Events(emit)
    work = Path(WORK)
    work.mkdir(parents=True)
    try:
        with target_host(halt.exported):
            evidence += _on_domain(world, halt, tell, connect) if connect else _up_and_down(world, halt, tell)
    except NvlaneError as error:
        evidence.append(_failure("another host exports a namespace", error))
    finally:
        shutil.rmtree(work)
    return {
        "lane": halt.lane,
        "variant": halt.variant,
        "frontend": halt.frontend,
        "verified": bool(evidence) and all(piece.ok for piece in evidence),
        "evidence": [_as_json(piece) for piece in evidence],
        "seconds": round(time.monotonic() - begin, 2),
    }


def _on_domain(world: World, halt: Halt, tell: _Events, connect: str) -> list[Evidence]:
    """On a domain that is made for the halt, whose definition has to be the same afterwards."""
    with libvirtd.defined(halt.name, pmem_tools=halt.lane == "nvdimm") as before:
        evidence = _up_and_down(world, halt, tell, connect)
        same = libvirtd.definition(halt.name) == before
    claim = Evidence(
        lane=0,
        claim="the domain's definition",
        expected="to the letter as before",
        found="to the letter as before" if same else "another one",
        ok=same,
    )
    return [*evidence, claim]


def _up_and_down(world: World, halt: Halt, tell: _Events, connect: str = "") -> list[Evidence]:
    evidence: list[Evidence] = []
    file = SpecFile(path=f"{halt.name}.toml", directory=WORK, text=halt.spec(connect))
    try:
        came = _bring_up(world, file, tell, connect)
        evidence += came.record.evidence
    except NvlaneError as error:
        evidence.append(_failure("the machine comes up", error))
    if world.store.has(halt.name):
        evidence += _down(world, halt, tell)
    return evidence


def _bring_up(world: World, file: SpecFile, tell: _Events, connect: str) -> CameUp:
    if not connect:
        return bring_up(world, file, tell, keep_on_failure=False, check_guest=True, deadline=GUEST_DEADLINE)
    came = bring_up_domain(world, file, tell, ask=lambda _: True, check_guest=True, deadline=GUEST_DEADLINE)
    if came is None:
        raise Bug("the tour said no to its own question")
    return came


def _down(world: World, halt: Halt, tell: _Events) -> list[Evidence]:
    try:
        went = take_down(world, halt.name, tell, shutdown=0)
    except NvlaneError as error:
        return [_failure("the machine goes down", error)]
    put_back = Evidence(
        lane=0,
        claim="everything is put back",
        expected="nothing left",
        found=went.report.text() if went.report.failed else "nothing left",
        ok=not went.report.failed,
    )
    return [*went.proofs, put_back]


def _failure(claim: str, error: NvlaneError) -> Evidence:
    return Evidence(lane=0, claim=claim, expected="no error", found=str(error), ok=False)


def _as_json(piece: Evidence) -> dict[str, Any]:
    return {"claim": piece.claim, "expected": piece.expected, "found": piece.found, "ok": piece.ok}
