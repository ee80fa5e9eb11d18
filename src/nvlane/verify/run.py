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


def verify(
    claims: Iterable[Claim], look: Look, *, progress: Callable[[Evidence], None] = lambda _: None
) -> tuple[Evidence, ...]:
    """Evidence for every claim. A claim that cannot be looked up is evidence too: of its absence.

    Reading comes before writing, so that the content of a drive is compared before the write proof changes it.
    """
    seen: list[Evidence] = []
    for claim in sorted(claims, key=lambda c: isinstance(c, WriteClaim)):
        try:
            found = _CHECKS[type(claim)](claim, look)
        except WireError as error:
            name = type(claim).__name__.removesuffix("Claim").lower()
            found = [Evidence(lane=claim.lane, claim=name, expected="to be found", found=str(error), ok=False)]
        for piece in found:
            progress(piece)
        seen += found
    return tuple(seen)
