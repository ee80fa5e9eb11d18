"""Rules of a vhost-user lane."""

from __future__ import annotations

from nvlane.model.size import format_size
from nvlane.spec.lane import VhostUser
from nvlane.spec.problem import Problem, Problems

_BACKENDS = ("drive", "file", "malloc", "null")


def one_backend(lane: VhostUser, place: str) -> Problems:
    """Exactly one of `drive`, `file`, `malloc` and `null`."""
    given = [key for key in _BACKENDS if getattr(lane, key)]
    remedy = f"write one of {', '.join(_BACKENDS)}"
    if not given:
        yield Problem(place=place, message="has nothing to serve", remedy=remedy)
    elif len(given) > 1:
        message = f"stands beside {given[0]}; a lane serves one thing"
        yield Problem(place=f"{place}.{given[1]}", message=message, remedy=remedy)


def keys_of_backends(lane: VhostUser, place: str) -> Problems:
    """`size` belongs to `file`, `namespace` to `drive`."""
    if lane.size and not lane.file:
        yield Problem(
            place=f"{place}.size",
            message="stands without a file",
            remedy="write malloc or null with the size, or add file",
        )
    if lane.namespace != 1 and not lane.drive:
        yield Problem(
            place=f"{place}.namespace",
            message="stands without a drive",
            remedy="add drive, or drop namespace",
        )


def whole_blocks(lane: VhostUser, place: str) -> Problems:
    """`block_size` is 512 or 4096, and sizes are multiples of it."""
    if lane.block_size not in (0, 512, 4096):
        message = f"{lane.block_size} is not a block size here"
        yield Problem(place=f"{place}.block_size", message=message, remedy="write 512 or 4096, or leave it out")
        return
    block = lane.block_size or 512
    for key in ("size", "malloc", "null"):
        if getattr(lane, key) % block:
            message = f"{format_size(getattr(lane, key))} is no multiple of the block size ({block})"
            yield Problem(place=f"{place}.{key}", message=message, remedy=f"write a multiple of {block}")


def proof_can_be_written(lane: VhostUser, place: str) -> Problems:
    """`write_proof` needs a lane that the guest may write, and a backend that outlives the target."""
    if lane.write_proof and lane.read_only:
        yield Problem(
            place=f"{place}.write_proof",
            message="the lane is read-only",
            remedy="drop write_proof or read_only",
        )
    if lane.write_proof and (lane.malloc or lane.null):
        message = "nothing is left to read after `down`"
        yield Problem(
            place=f"{place}.write_proof",
            message=message,
            remedy="serve a drive or a file, or drop write_proof",
        )


RULES = (one_backend, keys_of_backends, whole_blocks, proof_can_be_written)
