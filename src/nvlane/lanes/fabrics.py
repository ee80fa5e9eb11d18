"""fabrics: a namespace that another host exports.

::

    guest    virtio-blk | virtio-scsi | nvme | sata | usb driver
    QEMU     its block layer, or with `engine` a vhost-user target
    host     /dev/nvmeXnY ── native multipath ── nvme-tcp | nvme-rdma | nvme-fc | nvme-loop
               │ one connection a path
    Target   nvmet, or any NVMe over Fabrics array

The name of the block device is known only once the host is connected, so the plan names a link of its own
(`RUNTIME/MACHINE/LANE/namespace`): the step that follows the connection finds the namespace by NQN and number, sees
that nobody uses it, and makes the link. What it is (size, content) goes into the claims then.

It keeps QEMU's block layer and needs no IOMMU; it costs a network's way there and back for each command.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from nvlane.lanes import frontend, vhost_user
from nvlane.lanes.connection import WantedConnection, connection_refusals, connection_steps
from nvlane.lanes.context import Context
from nvlane.lanes.drive import write_claim
from nvlane.model.claim import BoundClaim, Claim, LinkClaim, Locator
from nvlane.model.device import BlockNode, Device, MemoryNeeds
from nvlane.model.fabrics import FabricPath, Transport, service_of
from nvlane.plan import refuse
from nvlane.plan.fabrics_step import BindNamespace
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import Export, MakeDirectory, StartTarget, Step
from nvlane.spec.lane import Fabrics as FabricsSpec
from nvlane.spec.lane import LaneKind, VhostFrontend
from nvlane.spec.lane import VhostUser as VhostUserSpec


class Fabrics:
    kind: ClassVar[LaneKind] = LaneKind.FABRICS

    def refusals(self, lane: FabricsSpec, at: Context) -> tuple[Refusal, ...]:
        reasons: list[Refusal | None] = list(connection_refusals(wanted(lane), at.facts, at.index))
        if lane.engine:
            device = vhost_user.DEVICES[_vhost(lane).frontend]
            reasons.append(refuse.no_device(at.index, at.qemu, device, f"vhost-user with {lane.frontend}"))
            reasons += vhost_user.engine_refusals(_vhost(lane), at)
            reasons += vhost_user.memory_refusals(at)
        else:
            reasons += frontend.refusals(lane.frontend, lane.block_size, at, read_only=lane.read_only)
        return tuple(reason for reason in reasons if reason is not None)

    def notes(self, lane: FabricsSpec, at: Context) -> tuple[Note, ...]:
        lines = []
        if lane.transport is Transport.LOOP:
            lines.append("loop leads to an export of this very host: good for trying, and for nothing else")
        if lane.controller_loss >= 0:
            lines.append(
                f"a Target that is away for more than {lane.controller_loss} s is given up, and the guest's disk with "
                "it: only down and up bring it back; leave controller_loss out"
            )
        if lane.read_only and not lane.engine and not frontend.shows_read_only(lane.frontend):
            lines.append(frontend.NVME_READ_ONLY)
        return tuple(Note(lane=at.index, text=line) for line in lines)

    def needs(self, lane: FabricsSpec, at: Context) -> MemoryNeeds:  # noqa: ARG002
        return MemoryNeeds(shared=bool(lane.engine))

    def steps(self, lane: FabricsSpec, at: Context) -> tuple[Step, ...]:
        bind = BindNamespace(nqn=lane.nqn, nsid=lane.namespace, path=_path(at), block_size=lane.block_size)
        directory = MakeDirectory(path=vhost_user.directory_of(at))
        target = (_target(lane, at),) if lane.engine else ()
        return (*connection_steps(wanted(lane), at.facts), directory, bind, *target)

    def devices(self, lane: FabricsSpec, at: Context) -> tuple[Device, ...]:
        if lane.engine:
            return vhost_user.VhostUser().devices(_vhost(lane), at)
        node = _node(lane, at)
        disk = frontend.Disk(node=node.node_name, serial=at.id, block_size=lane.block_size, iothread=lane.iothread)
        return (node, *frontend.devices(lane.frontend, disk, at))

    def claims(self, lane: FabricsSpec, at: Context) -> tuple[Claim, ...]:
        locator = frontend.locator(lane.frontend, at)
        visible = lane.read_only and (bool(lane.engine) or frontend.shows_read_only(lane.frontend))
        claims: list[Claim] = [LinkClaim(lane=at.index, chardev_id=f"{at.id}-link")] if lane.engine else []
        if lane.engine:
            scsi = _vhost(lane).frontend is VhostFrontend.VIRTIO_SCSI
            locator = Locator(device_id=at.id, lun=0 if scsi else None)
        claims.append(BoundClaim(lane=at.index, locator=locator, path=_path(at), read_only=True if visible else None))
        if lane.write_proof:
            claims.append(write_claim(f"fabrics:{lane.namespace}:{lane.nqn}", locator, at))
        return tuple(claims)


def wanted(lane: FabricsSpec) -> WantedConnection:
    """The connection that a lane asks for."""
    first = FabricPath(
        transport=lane.transport,
        address=lane.address,
        service=service_of(lane.transport, lane.port),
        host_address=lane.host_address,
    )
    return WantedConnection(
        nqn=lane.nqn,
        paths=(first, *(dataclasses.replace(first, address=address) for address in lane.paths)),
        host_nqn=lane.host_nqn,
        controller_loss=lane.controller_loss,
        reconnect_delay=lane.reconnect_delay,
        fast_io_fail=lane.fast_io_fail,
        secret=lane.secret,
        controller_secret=lane.controller_secret,
        tls=lane.tls,
        tls_key=lane.tls_key,
    )


def _path(at: Context) -> str:
    return f"{vhost_user.directory_of(at)}/namespace"


def _node(lane: FabricsSpec, at: Context) -> BlockNode:
    """Direct I/O: the guest has a page cache of its own, and what it flushed must be at the Target."""
    file: dict[str, object] = {
        "driver": "host_device",
        "filename": _path(at),
        "aio": "native",
        "cache": {"direct": True, "no-flush": False},
        "discard": "unmap",
    }
    options: dict[str, object] = {"file": file, "discard": "unmap"}
    if lane.read_only:
        file["read-only"] = options["read-only"] = True
    return BlockNode(driver="raw", node_name=f"{at.id}-namespace", options=options)


def _vhost(lane: FabricsSpec) -> VhostUserSpec:
    """The same lane as a vhost-user lane on a block device, for what the two have in common."""
    scsi = str(lane.frontend) == VhostFrontend.VIRTIO_SCSI
    return VhostUserSpec(
        engine=lane.engine,
        frontend=VhostFrontend.VIRTIO_SCSI if scsi else VhostFrontend.VIRTIO_BLK,
        file="namespace",
        block_size=lane.block_size,
        read_only=lane.read_only,
    )


def _target(lane: FabricsSpec, at: Context) -> StartTarget:
    as_vhost = _vhost(lane)
    return StartTarget(
        engine=lane.engine,
        name=f"{at.spec.machine.name}.{at.id}",
        binary=at.engines[lane.engine].binary(at.facts),
        directory=vhost_user.directory_of(at),
        export=Export(
            node=f"{at.id}-node",
            socket=vhost_user.socket_of(at),
            frontend=str(as_vhost.frontend),
            queues=vhost_user.queues_of(as_vhost, at),
            block_size=lane.block_size,
            read_only=lane.read_only,
            path=_path(at),
            block_device=True,
        ),
        opens=(_path(at),),
        cpus=at.cpus,
        sandbox=at.sandbox,
    )
