"""The host's half of write proofs, read at the right moment: a namespace of a fabric while this host is still connected
to it, everything else once it is back."""

from __future__ import annotations

import dataclasses

from nvlane.cli.service.record import MachineRecord
from nvlane.cli.service.tell import Tell
from nvlane.cli.service.world import World, read_paths_of
from nvlane.model.claim import Evidence
from nvlane.verify.look import Proof
from nvlane.verify.proof import FABRICS_PLACE, check_proofs


def on_fabric(proof: Proof) -> bool:
    return proof.host_path.startswith(FABRICS_PLACE)


def read_early(world: World, record: MachineRecord, tell: Tell, *, lane: int | None = None) -> tuple[Evidence, ...]:
    """The proofs on a fabric, of one lane or of all, before anything of it is undone."""
    wanted = (proof for proof in record.proofs if on_fabric(proof) and lane in (None, proof.lane))
    return _read(world, record, tuple(wanted), tell)


def read_late(world: World, record: MachineRecord, tell: Tell) -> tuple[Evidence, ...]:
    """All others, after the undo."""
    return _read(world, record, tuple(proof for proof in record.proofs if not on_fabric(proof)), tell)


def without_early(record: MachineRecord, lane: int) -> MachineRecord:
    """The record once the proofs on a fabric of a lane are read: nobody can read them again."""
    left = tuple(proof for proof in record.proofs if not (on_fabric(proof) and proof.lane == lane))
    return dataclasses.replace(record, proofs=left)


def _read(world: World, record: MachineRecord, wanted: tuple[Proof, ...], tell: Tell) -> tuple[Evidence, ...]:
    if not wanted:
        return ()
    tell.phase("reading on the host what the guest wrote")
    facts = read_paths_of(world, [proof.host_path for proof in wanted if proof.host_path.startswith("/")])
    proofs = check_proofs(wanted, world.host, facts)
    for piece in proofs:
        tell.evidence(piece, record.lane_name(piece.lane))
    return proofs
