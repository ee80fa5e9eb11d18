"""Claims about what is known only once it is bound: settled from the results that the journal keeps."""

from __future__ import annotations

from collections.abc import Iterable

from nvlane.apply.journal import Entry
from nvlane.apply.operations.found import BoundNamespace
from nvlane.model.claim import BlockClaim, BoundClaim, Claim, ContentClaim
from nvlane.model.errors import Bug


def settle(claims: Iterable[Claim], entries: Iterable[Entry]) -> tuple[Claim, ...]:
    """The same claims, each BoundClaim replaced by those about what was bound. Of several bindings of one path the
    last counts: it may have been released and bound again."""
    bound = {entry.result.path: entry.result for entry in entries if isinstance(entry.result, BoundNamespace)}
    settled: list[Claim] = []
    for claim in claims:
        if not isinstance(claim, BoundClaim):
            settled.append(claim)
            continue
        found = bound.get(claim.path)
        if found is None:
            raise Bug(f"nothing was bound to {claim.path}")
        settled.append(
            BlockClaim(
                lane=claim.lane,
                locator=claim.locator,
                size=found.size,
                block_size=found.block_size,
                read_only=claim.read_only,
            )
        )
        if found.sha256:
            settled.append(
                ContentClaim(lane=claim.lane, locator=claim.locator, ranges=found.ranges, sha256=found.sha256)
            )
    return tuple(settled)
