"""Rules of a fabrics lane."""

from __future__ import annotations

from nvlane.model.fabrics import DEFAULT_PORT, Transport
from nvlane.spec.lane import Fabrics, VhostFrontend
from nvlane.spec.problem import Problem, Problems


def has_an_address(lane: Fabrics, place: str) -> Problems:
    """`address` is needed but for loop, `host_address` for fc too; `paths` stand beside an `address`."""
    if lane.transport is Transport.LOOP:
        for key in ("address", "paths", "host_address"):
            if getattr(lane, key):
                message = "loop leads to this host's own exports and has no address"
                yield Problem(place=f"{place}.{key}", message=message, remedy=f"drop {key}, or take another transport")
        return
    if not lane.address:
        message = f"{lane.transport} needs the Target's address"
        yield Problem(place=f"{place}.address", message=message, remedy="write address; nvlane fabrics list shows it")
    if lane.transport is Transport.FC and not lane.host_address:
        message = "fc needs the address of the port here too"
        yield Problem(place=f"{place}.host_address", message=message, remedy="see /sys/class/fc_host")
    if len({lane.address, *lane.paths}) != 1 + len(lane.paths):
        message = "names an address twice"
        yield Problem(place=f"{place}.paths", message=message, remedy="write each address once")


def keys_of_transports(lane: Fabrics, place: str) -> Problems:
    """`port` belongs to tcp and rdma, `tls` to tcp, `tls_key` to `tls`, `controller_secret` to `secret`."""
    if lane.port != DEFAULT_PORT and lane.transport not in (Transport.TCP, Transport.RDMA):
        yield Problem(place=f"{place}.port", message=f"{lane.transport} has no ports", remedy="drop port")
    if lane.tls and lane.transport is not Transport.TCP:
        yield Problem(place=f"{place}.tls", message=f"{lane.transport} has no TLS", remedy="drop tls, or take tcp")
    if lane.tls_key and not lane.tls:
        yield Problem(place=f"{place}.tls_key", message="stands without tls", remedy="add tls = true")
    if lane.controller_secret and not lane.secret:
        message = "stands without a secret: the Target is asked who it is only by a host that says who it is"
        yield Problem(place=f"{place}.controller_secret", message=message, remedy="add secret")


def waits_before_it_gives_up(lane: Fabrics, place: str) -> Problems:
    """`fast_io_fail` is shorter than `controller_loss`."""
    if 0 <= lane.controller_loss <= lane.fast_io_fail:
        message = f"I/O cannot wait for {lane.fast_io_fail} s: the Target is given up after {lane.controller_loss} s"
        yield Problem(place=f"{place}.fast_io_fail", message=message, remedy="write less, or drop controller_loss")


def blocks(lane: Fabrics, place: str) -> Problems:
    """`block_size` is 512 or 4096."""
    if lane.block_size not in (512, 4096):
        message = f"{lane.block_size} is not a block size here"
        yield Problem(place=f"{place}.block_size", message=message, remedy="write 512 or 4096")


def front_ends_of_engines(lane: Fabrics, place: str) -> Problems:
    """With an `engine` the front end is virtio-blk or virtio-scsi."""
    if lane.engine and str(lane.frontend) not in {str(choice) for choice in VhostFrontend}:
        message = f"a vhost-user target has no {lane.frontend}"
        yield Problem(place=f"{place}.frontend", message=message, remedy="take virtio-blk or virtio-scsi")


def proof_can_be_written(lane: Fabrics, place: str) -> Problems:
    """`write_proof` needs a lane that the guest may write."""
    if lane.write_proof and lane.read_only:
        yield Problem(
            place=f"{place}.write_proof", message="the lane is read-only", remedy="drop write_proof or read_only"
        )


RULES = (
    has_an_address,
    keys_of_transports,
    waits_before_it_gives_up,
    blocks,
    front_ends_of_engines,
    proof_can_be_written,
)
