"""`doctor`: which lanes this host can do. Pure: every lane is planned for, and its own refusals are the answer.

A lane that takes a drive is tried on every drive; what stops it on all of them stops the lane.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from nvlane.facts.shape import Facts, PathFacts
from nvlane.lanes.compose import make_plan
from nvlane.model.fabrics import UUID_NQN, Transport
from nvlane.model.size import GIB, MIB
from nvlane.plan import refuse
from nvlane.plan.plan import Refusal
from nvlane.spec.document import Spec
from nvlane.spec.lane import (
    Backing,
    BlockFrontend,
    Emulated,
    EmulatedNamespace,
    Fabrics,
    Fdp,
    Lane,
    LaneKind,
    Nvdimm,
    Passthrough,
    Userspace,
    VhostUser,
    Zoned,
)
from nvlane.spec.machine import Machine
from nvlane.targets.table import ENGINES

#: An image that is not there yet, in a directory with room: what a lane refuses is then never the image.
_IMAGE = "/nvlane-doctor/image"
#: A Target somewhere: an address for documentation (RFC 5737), a port's names. Nobody connects to it.
_ELSEWHERE = "192.0.2.1"
_PORT = "nn-0x0000000000000000:pn-0x0000000000000000"
_NQN = f"{UUID_NQN}00000000-0000-0000-0000-000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One lane in one variant. `drives` are those that it can take now; `refusals` why it cannot."""

    lane: str
    variant: str
    possible: bool
    drives: tuple[str, ...] = ()
    refusals: tuple[Refusal, ...] = ()


def survey(facts: Facts) -> tuple[Trial, ...]:
    """Every lane in its main variants."""
    image = PathFacts(path=_IMAGE, kind="absent", free_space=1 << 50, filesystem="ext4")
    # The machine boots something that is there: what is asked here is the lanes.
    kernel = PathFacts(path="/nvlane-doctor/kernel", kind="file")
    room = dataclasses.replace(facts, paths=(image, kernel))
    return (*_without_drive(room), *_with_drive(room))


def _without_drive(facts: Facts) -> Iterator[Trial]:
    namespace = EmulatedNamespace(image=_IMAGE, size=GIB)
    zoned = EmulatedNamespace(image=_IMAGE, size=GIB, zoned=Zoned(zone_size=64 * MIB))
    lanes: tuple[tuple[str, Lane], ...] = (
        ("an NVMe drive on an image", Emulated(namespaces=(namespace,))),
        ("with zones (ZNS)", Emulated(namespaces=(zoned,))),
        ("with Flexible Data Placement", Emulated(namespaces=(namespace,), fdp=Fdp())),
        ("with virtual functions (SR-IOV)", Emulated(namespaces=(namespace,), vfs=2)),
        ("a file under nvlane-target", VhostUser(file=_IMAGE, size=GIB)),
        ("a file under qemu-storage-daemon", VhostUser(engine="qemu-storage-daemon", file=_IMAGE, size=GIB)),
        ("an NVDIMM of memory", Nvdimm(backing=Backing.MEMORY, size=256 * MIB)),
        ("an NVDIMM of hugepages", Nvdimm(backing=Backing.HUGEPAGES, size=256 * MIB)),
        ("virtio-pmem on a file", Nvdimm(backing=Backing.FILE, path=_IMAGE, size=256 * MIB)),
        ("a namespace over tcp", Fabrics(address=_ELSEWHERE, nqn=_NQN)),
        ("a namespace over rdma", Fabrics(transport=Transport.RDMA, address=_ELSEWHERE, nqn=_NQN)),
        ("a namespace over fc", Fabrics(transport=Transport.FC, address=_PORT, host_address=_PORT, nqn=_NQN)),
    )
    for variant, lane in lanes:
        refusals = _refusals(lane, facts)
        yield Trial(lane=str(lane.KIND), variant=variant, possible=not refusals, refusals=refusals)


def _with_drive(facts: Facts) -> Iterator[Trial]:
    addresses = [str(drive.address) for drive in facts.drives]
    for kind, variant in (
        (LaneKind.PASSTHROUGH, "a whole drive"),
        (LaneKind.USERSPACE, "a drive as virtio-blk"),
        (LaneKind.VHOST_USER, "a drive under nvlane-target"),
    ):
        tried = {address: _refusals(_taking(kind, address), facts) for address in addresses}
        able = tuple(address for address, refusals in tried.items() if not refusals)
        reasons = tuple(dict.fromkeys(one for every in tried.values() for one in every)) or _no_drive(facts)
        refusals = () if able else reasons
        yield Trial(lane=str(kind), variant=variant, possible=bool(able), drives=able, refusals=refusals)


def _no_drive(facts: Facts) -> tuple[Refusal, ...]:
    """A host without drives: what else it would lack, if it had one."""
    lacks = [
        Refusal(
            code="no-drive",
            lane=None,
            reason="this host shows no NVMe drive on PCI",
            remedy="nvlane lab up makes a host that has some",
        )
    ]
    if not facts.iommu:
        remedy = "turn on VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by default)"
        lacks.append(Refusal(code="no-iommu", lane=None, reason="no IOMMU is turned on", remedy=remedy))
    vfio = refuse.no_vfio(0, facts)
    return (*lacks, *([vfio] if vfio else []))


def _taking(kind: LaneKind, address: str) -> Lane:
    match kind:
        case LaneKind.PASSTHROUGH:
            return Passthrough(drive=address)
        case LaneKind.USERSPACE:
            return Userspace(drive=address, frontend=BlockFrontend.VIRTIO_BLK)
        case _:
            return VhostUser(drive=address)


def _refusals(lane: Lane, facts: Facts) -> tuple[Refusal, ...]:
    machine = Machine(name="nvlane-doctor", memory=256 * MIB, kernel="/nvlane-doctor/kernel")
    return make_plan(Spec(machine=machine, lanes=(lane,)), facts, ENGINES).refusals
