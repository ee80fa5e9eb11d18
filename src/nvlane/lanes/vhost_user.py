"""vhost-user: a target process serves the guest through shared memory.

::

    guest   virtio-blk | virtio-scsi driver ── rings in guest memory
    QEMU    vhost-user-*-pci (set-up only)       │ shared: hugepages or memfd
    target  polls or waits on the same rings ────┘ ── its own NVMe driver | file | memory
    host    vfio-pci ── IOMMU group, where the source is a drive

The data path leaves QEMU out. It costs QEMU's block layer (snapshot, mirror and throttle must live in the target) and
shared guest memory: nvlane sets `share=on` on every memory backend by construction, for QEMU itself starts without it
and the guest's disk is then dead, which shows only in `query-chardev`.
"""

from __future__ import annotations

from typing import ClassVar

from nvlane.facts.locate import NotLocated, find_drive
from nvlane.lanes import drive, image
from nvlane.lanes.context import Context
from nvlane.model.claim import BlockClaim, Claim, ContentClaim, LinkClaim, Locator
from nvlane.model.cpus import format_cpus
from nvlane.model.device import Device, Frontend, MemoryNeeds, SocketChardev
from nvlane.plan import refuse
from nvlane.plan.engine import Engine
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import Export, MakeDirectory, StartTarget, Step
from nvlane.spec.lane import LaneKind, VhostFrontend
from nvlane.spec.lane import VhostUser as VhostUserSpec

DEVICES = {VhostFrontend.VIRTIO_BLK: "vhost-user-blk-pci", VhostFrontend.VIRTIO_SCSI: "vhost-user-scsi-pci"}


#: Milliseconds from the end of a target to QEMU's next try to connect: the least pause that a guest sees.
RECONNECT_MS = 20


class VhostUser:
    kind: ClassVar[LaneKind] = LaneKind.VHOST_USER

    def refusals(self, lane: VhostUserSpec, at: Context) -> tuple[Refusal, ...]:
        reasons = [refuse.no_device(at.index, at.qemu, DEVICES[lane.frontend], f"vhost-user with {lane.frontend}")]
        reasons += source_refusals(lane, at)
        reasons += memory_refusals(at)
        reasons += core_refusals(lane.cores, at)
        return tuple(reason for reason in reasons if reason is not None)

    def notes(self, lane: VhostUserSpec, at: Context) -> tuple[Note, ...]:
        notes = list(drive.notes(lane.drive, at, write_proof=lane.write_proof)) if lane.drive else []
        if lane.drive and lane.cores:
            node = drive.locate(lane.drive, at).function.numa_node
            far = lane.cores - next((n.cpus for n in at.facts.nodes if n.node == node), lane.cores)
            if far:
                text = f"cores {format_cpus(far)} of the target are not on the drive's NUMA node {node}"
                notes.append(Note(lane=at.index, text=f"{text}; leave cores out, or choose some of that node"))
        if at.engines[lane.engine].reconnects and not at.qemu.reconnect_ms:
            words = f"QEMU {at.qemu.version} does not connect to a target that was started anew (9.2 and newer do)"
            notes.append(Note(lane=at.index, text=f"{words}: when the target ends, the guest has lost this disk"))
        return tuple(notes)

    def needs(self, lane: VhostUserSpec, at: Context) -> MemoryNeeds:  # noqa: ARG002
        return MemoryNeeds(shared=True)

    def steps(self, lane: VhostUserSpec, at: Context) -> tuple[Step, ...]:
        directory = directory_of(at)
        return (
            *source_steps(lane, at),
            MakeDirectory(path=directory),
            StartTarget(
                engine=lane.engine,
                name=f"{at.spec.machine.name}.{at.id}",
                binary=at.engines[lane.engine].binary(at.facts),
                directory=directory,
                export=export(lane, at, socket_of(at)),
                opens=(lane.file,) if lane.file else (),
                memlock=drive.memlock_needed(at, target=True) if lane.drive else None,
                cpus=lane.cores or at.cpus,
                cores=lane.cores,
                sandbox=at.sandbox,
            ),
        )

    def devices(self, lane: VhostUserSpec, at: Context) -> tuple[Device, ...]:
        # QEMU blocks while it makes a device whose socket is not there: nvlane's sockets listen before it starts.
        again = RECONNECT_MS if at.engines[lane.engine].reconnects and at.qemu.reconnect_ms else 0
        link = SocketChardev(id=f"{at.id}-link", path=socket_of(at), reconnect_ms=again)
        queues = "num-queues" if lane.frontend is VhostFrontend.VIRTIO_BLK else "num_queues"
        properties: dict[str, object] = {"chardev": link.id, queues: queues_of(lane, at)}
        return (link, Frontend(driver=DEVICES[lane.frontend], id=at.id, properties=properties, slot=True))

    def claims(self, lane: VhostUserSpec, at: Context) -> tuple[Claim, ...]:
        locator = Locator(device_id=at.id, lun=0 if lane.frontend is VhostFrontend.VIRTIO_SCSI else None)
        link = LinkClaim(lane=at.index, chardev_id=f"{at.id}-link")
        if lane.drive:
            found = drive.locate(lane.drive, at)
            ns = drive.namespace(found.drive, lane.namespace)
            if ns is None:
                return (link,)
            return (
                link,
                *drive.block_claims(found, ns, locator, at, write_proof=lane.write_proof, read_only=lane.read_only),
            )
        claims: list[Claim] = [link, BlockClaim(
            lane=at.index,
            locator=locator,
            size=_size(lane, at),
            block_size=_block_size(lane, at),
            read_only=True if lane.read_only else None,
        )]  # fmt: skip
        seen = at.facts.fingerprint(lane.file) if lane.file else None
        if seen is not None:
            claims.append(ContentClaim(lane=at.index, locator=locator, ranges=seen.ranges, sha256=seen.sha256))
        if lane.write_proof and lane.file:
            claims.append(drive.write_claim(lane.file, locator, at))
        return tuple(claims)


def directory_of(at: Context) -> str:
    return f"{at.runtime}/{at.id}"


def socket_of(at: Context) -> str:
    return f"{directory_of(at)}/vhost.sock"


def queues_of(lane: VhostUserSpec, at: Context) -> int:
    """Set on both ends: the daemon's default is 1 and QEMU's the number of vCPUs, and they refuse each other."""
    return lane.queues or at.vcpus


def _source(lane: VhostUserSpec) -> str:
    return "drive" if lane.drive else "file" if lane.file else "malloc" if lane.malloc else "null"


def _block_size(lane: VhostUserSpec, at: Context) -> int:
    if lane.block_size or not lane.drive:
        return lane.block_size or 512
    ns = drive.namespace(drive.locate(lane.drive, at).drive, lane.namespace)
    return ns.block_size if ns else 512


def _size(lane: VhostUserSpec, at: Context) -> int:
    return at.facts.path(lane.file).virtual_size or lane.size if lane.file else lane.malloc or lane.null


def source_refusals(lane: VhostUserSpec, at: Context) -> list[Refusal]:
    """Why the engine cannot serve what the lane names, or must not take it."""
    reasons = engine_refusals(lane, at)
    if lane.drive:
        reasons += drive.refusals(lane.drive, at, target=True)
        reasons += drive.namespace_refusals(lane.drive, lane.namespace, at)
        reasons += drive.metadata_refusals(lane.drive, lane.namespace, at, whose=lane.engine)
        reasons += _block_size_refusals(lane, at)
    if lane.file and at.facts.path(lane.file).kind == "block":
        reasons += image.device_refusals(lane.file, at, f"{at.place}.file")
    elif lane.file:
        reasons += image.file_refusals(lane.file, lane.size, at, f"{at.place}.file", read_only=lane.read_only)
        reasons += _format_refusals(lane, at)
    return reasons


def memory_refusals(at: Context) -> list[Refusal]:
    """A machine that runs, and whose memory no other process can reach."""
    if at.running is None or at.running.needs.shared:
        return []
    return [
        at.refuse(
            "memory-private",
            "the machine was started with private memory, which no target can reach",
            evidence=("its memory backends were made without share=on",),
            remedy='start it with a vhost-user lane in its spec, or with machine.memory_backing = "memfd"',
        )
    ]


def core_refusals(cores: frozenset[int], at: Context) -> list[Refusal]:
    unknown = cores - at.facts.cpus
    if not unknown:
        return []
    return [
        at.refuse(
            "no-such-cores",
            f"{at.place}.cores: this host has no processors {format_cpus(unknown)}",
            evidence=(f"online: {format_cpus(at.facts.cpus)}",),
            remedy="name some of those, or leave cores out",
        )
    ]


def source_steps(lane: VhostUserSpec, at: Context) -> tuple[Step, ...]:
    """The drive goes to vfio-pci; the file is made."""
    bind = drive.bind_steps(lane.drive, at) if lane.drive else ()
    create = image.create_step(lane.file, lane.size, "raw", at) if lane.file and lane.size else ()
    return (*bind, *create)


def export(lane: VhostUserSpec, at: Context, socket: str) -> Export:
    """What the target serves on `socket`."""
    return Export(
        node=f"{at.id}-node",
        socket=socket,
        frontend=str(lane.frontend),
        queues=queues_of(lane, at),
        block_size=_block_size(lane, at),
        read_only=lane.read_only,
        address=drive.locate(lane.drive, at).function.address if lane.drive else None,
        namespace=lane.namespace,
        path=lane.file,
        malloc=lane.malloc,
        null=lane.null,
        block_device=bool(lane.file) and at.facts.path(lane.file).kind == "block",
    )


def engine_refusals(lane: VhostUserSpec, at: Context) -> list[Refusal]:
    engine: Engine | None = at.engines.get(lane.engine)
    if engine is None:
        known = ", ".join(sorted(at.engines))
        return [at.refuse("no-engine", f"there is no engine '{lane.engine}'", remedy=f"choose one of: {known}")]
    reasons: list[Refusal] = []
    if str(lane.frontend) not in engine.frontends:
        reasons.append(
            at.refuse(
                "engine-frontend",
                f"{lane.engine} has no {lane.frontend}",
                evidence=(f"its front ends: {', '.join(sorted(engine.frontends))}",),
                remedy=f'take frontend = "{min(engine.frontends)}"',
            )
        )
    problem, remedy = engine.problem(at.facts, _source(lane))
    if _source(lane) not in engine.sources:
        reasons.append(
            at.refuse(
                "engine-source",
                problem or f"{lane.engine} cannot serve '{_source(lane)}'",
                evidence=(f"it serves: {', '.join(sorted(engine.sources))}",),
                remedy=remedy or "take another source",
            )
        )
    elif problem:
        reasons.append(at.refuse("engine-unusable", problem, remedy=remedy))
    writable_only = engine.read_only_problem(str(lane.frontend), _source(lane)) if lane.read_only else ""
    if writable_only:
        reasons.append(
            at.refuse("engine-read-only", writable_only, remedy='take frontend = "virtio-blk", or drop read_only')
        )
    return reasons


def _format_refusals(lane: VhostUserSpec, at: Context) -> list[Refusal]:
    seen = at.facts.path(lane.file)
    if seen.kind != "file" or seen.format in ("", "raw"):
        return []
    return [
        at.refuse(
            "file-format",
            f"{lane.file} is a {seen.format} image, and this lane serves raw files",
            evidence=(f"qemu-img info: {seen.format}",),
            remedy=f"qemu-img convert -O raw {lane.file} NEW, or take the emulated lane",
        )
    ]


def _block_size_refusals(lane: VhostUserSpec, at: Context) -> list[Refusal]:
    found = find_drive(at.facts, lane.drive)
    ns = None if isinstance(found, NotLocated) else drive.namespace(found.drive, lane.namespace)
    engine = at.engines.get(lane.engine)
    if ns is None or engine is None or lane.block_size in (0, ns.block_size):
        return []
    if lane.block_size > ns.block_size and engine.any_block_size:
        return []
    return [
        at.refuse(
            "block-size",
            f"{at.place}.block_size is {lane.block_size} and the drive has {ns.block_size}-byte blocks",
            remedy=f"leave block_size out, or set it to {ns.block_size}",
        )
    ]
