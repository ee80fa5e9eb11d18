"""`verify`: the claims of a machine's lanes, looked up inside its guest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from nvlane.apply.journal import Journal
from nvlane.cli.service.clock import Clock
from nvlane.cli.service.guest import verify_claims
from nvlane.cli.service.record import LaneRecord, MachineRecord, keep
from nvlane.cli.service.runs import must_be_up
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World
from nvlane.model.claim import Claim, ContentClaim, WriteClaim
from nvlane.model.errors import Bug, VerifyFailed


def verify_machine(
    journal: Journal,
    record: MachineRecord,
    tell: Tell,
    *,
    clock: Clock,
    write: bool,
    deadline: float,
    lanes: Iterable[LaneRecord] | None = None,
) -> MachineRecord:
    """Check all lanes, or `lanes`, and keep what was found. `write` lets the guest write the proofs of lanes whose spec
    allows it; `deadline` is for the guest to answer at first, in seconds. Raises WireError when it does not."""
    wanted = tuple(record.present if lanes is None else lanes)
    numbers = {lane.number for lane in wanted}
    claims = [claim for lane in wanted for claim in _open_claims(lane, record)]
    tell.phase(f"waiting for the guest of {record.name}")

    def reached() -> None:
        clock.lap("guest")
        tell.phase("looking inside the guest")

    evidence, proofs = verify_claims(
        record,
        claims,
        write=write,
        deadline=deadline,
        progress=lambda piece: tell.evidence(piece, record.lane_name(piece.lane)),
        reached=reached,
    )
    clock.lap("verify")
    others = tuple(piece for piece in record.evidence if piece.lane not in numbers)
    proven = {proof.lane for proof in proofs}
    # What a lane that is gone by now wrote may have been written over by the next one at the same place.
    places = {(proof.host_path, proof.offset) for proof in proofs}
    earlier = (
        proof for proof in record.proofs if proof.lane not in proven and (proof.host_path, proof.offset) not in places
    )
    record = dataclasses.replace(record, evidence=(*others, *evidence), proofs=(*earlier, *proofs))
    keep(journal, record)
    return record


def _open_claims(lane: LaneRecord, record: MachineRecord) -> Iterator[Claim]:
    """The claims of a lane. Where the guest has written its proof, the content is no longer what the host saw."""
    has_written = any(proof.lane == lane.number for proof in record.proofs)
    written = {claim.locator for claim in lane.claims if isinstance(claim, WriteClaim) and has_written}
    for claim in lane.claims:
        if not (isinstance(claim, ContentClaim) and claim.locator in written):
            yield claim


def check(world: World, name: str, tell: Tell, *, write: bool, deadline: float) -> MachineRecord:
    """Verify a machine that is up; the record with the new evidence."""
    seen = must_be_up(world, name)
    if seen.record is None:
        raise Bug(f"{name} is up without a record")
    with world.store.open(name) as journal:
        return verify_machine(journal, seen.record, tell, clock=Clock(), write=write, deadline=deadline)


def raise_for_evidence(record: MachineRecord) -> None:
    """Raises VerifyFailed when something was not as claimed."""
    wrong = [piece for piece in record.evidence if not piece.ok]
    if wrong:
        lines = [
            f"  {record.lane_name(piece.lane)}: {piece.claim}: expected {piece.expected}, found {piece.found}"
            for piece in wrong
        ]
        message = f"{record.name}: {len(wrong)} of {len(record.evidence)} claims are not true\n" + "\n".join(lines)
        remedy = f"the machine stays up: nvlane status {record.name}; nvlane down {record.name}"
        raise VerifyFailed(message, remedy=remedy)
