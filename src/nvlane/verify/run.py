"""All claims of a machine, checked one after the other; each gives evidence, whatever became of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from nvlane.model.claim import (
    BlockClaim,
    Claim,
    ContentClaim,
    ControllerClaim,
    Evidence,
    LinkClaim,
    MemoryDeviceClaim,
    PmemClaim,
    WriteClaim,
)
from nvlane.model.errors import WireError
from nvlane.verify import checks
from nvlane.verify.look import Look
from nvlane.verify.pmem import pmem

_CHECKS: dict[type, Callable[[Any, Look], list[Evidence]]] = {
    ControllerClaim: checks.controller,
    BlockClaim: checks.block,
    ContentClaim: checks.content,
    WriteClaim: checks.write,
    LinkClaim: checks.link,
    MemoryDeviceClaim: checks.memory_device,
    PmemClaim: pmem,
}


def _order(claim: Claim) -> int:
    return 0 if isinstance(claim, LinkClaim) else 2 if isinstance(claim, WriteClaim) else 1


def verify(
    claims: Iterable[Claim], look: Look, *, progress: Callable[[Evidence], None] = lambda _: None
) -> tuple[Evidence, ...]:
    """Evidence for every claim. A claim that cannot be looked up is evidence too: of its absence.

    The link to a target comes first: where that is dead, nothing behind it is asked for. Reading comes before writing,
    so that the content of a drive is compared before the write proof changes it.
    """
    seen: list[Evidence] = []
    dead: set[int] = set()  # lanes whose target does not answer: in their guest every read of the disk would wait
    for claim in sorted(claims, key=_order):
        if claim.lane in dead:
            continue
        try:
            found = _CHECKS[type(claim)](claim, look)
            if isinstance(claim, LinkClaim) and not all(piece.ok for piece in found):
                dead.add(claim.lane)
        except WireError as error:
            name = type(claim).__name__.removesuffix("Claim").lower()
            found = [Evidence(lane=claim.lane, claim=name, expected="to be found", found=str(error), ok=False)]
        for piece in found:
            progress(piece)
        seen += found
    return tuple(seen)
