"""emulated: QEMU models an NVMe controller on image files or block devices of the host.

::

    guest   nvme driver ── doorbells (ioeventfd) ──┐
    QEMU    nvme, nvme-ns, nvme-subsys ── block graph (qcow2, raw)
    host    file or block device, page cache left out where it can be

Every feature of the protocol, and none of its speed: namespaces, subsystem, ZNS, FDP, protection information, SR-IOV,
CMB and PMR. It keeps QEMU's whole block layer and needs nothing of the host. `ioeventfd` is on, for QEMU's own
default (off, up to 10.0) takes every doorbell through its main loop.
"""

from __future__ import annotations

from typing import ClassVar

from nvlane.lanes import image
from nvlane.lanes.context import PROOF_OFFSET, Context
from nvlane.lanes.drive import write_claim
from nvlane.lanes.frontend import NVME_READ_ONLY
from nvlane.model.claim import BlockClaim, Claim, ContentClaim, ControllerClaim, Locator
from nvlane.model.device import BlockNode, Device, Frontend, MemoryNeeds, Object
from nvlane.model.size import MIB
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import Step
from nvlane.spec.lane import Emulated as EmulatedSpec
from nvlane.spec.lane import EmulatedNamespace, LaneKind

#: Prefix that QEMU puts before the nqn property (hw/nvme/subsys.c).
QEMU_NQN = "nqn.2019-08.org.qemu:"
#: PCI identity of QEMU's controller (docs/specs/pci-ids.rst in QEMU: Red Hat, NVMe).
VENDOR, DEVICE = 0x1B36, 0x0010


class Emulated:
    kind: ClassVar[LaneKind] = LaneKind.EMULATED

    def refusals(self, lane: EmulatedSpec, at: Context) -> tuple[Refusal, ...]:
        reasons = [refuse.no_device(at.index, at.qemu, name, "the emulated lane") for name in ("nvme", "nvme-ns")]
        if _subsystem(lane):
            reasons.append(refuse.no_device(at.index, at.qemu, "nvme-subsys", "an NVMe subsystem"))
        reasons += _feature_refusals(lane, at)
        for number, ns in enumerate(lane.namespaces):
            place = f"{at.place}.namespaces[{number}]"
            if ns.device:
                reasons += image.device_refusals(ns.device, at, place)
            else:
                reasons += image.file_refusals(ns.image, ns.size, at, place, read_only=ns.read_only)
        if lane.pmr_file:
            reasons += image.file_refusals(lane.pmr_file, lane.pmr, at, f"{at.place}.pmr_file")
        if at.hot:
            reasons += _hot_refusals(lane, at)
        return tuple(reason for reason in reasons if reason is not None)

    def notes(self, lane: EmulatedSpec, at: Context) -> tuple[Note, ...]:
        notes: list[Note] = []
        for content in (ns for ns in lane.namespaces if ns.device):
            notes.append(Note(lane=at.index, text=f"the guest gets the whole of {content.device}, as it is"))
        if any(ns.read_only for ns in lane.namespaces):
            notes.append(Note(lane=at.index, text=NVME_READ_ONLY))
        return tuple(notes)

    def needs(self, lane: EmulatedSpec, at: Context) -> MemoryNeeds:  # noqa: ARG002 - always nothing
        return MemoryNeeds()

    def steps(self, lane: EmulatedSpec, at: Context) -> tuple[Step, ...]:
        steps: list[Step] = []
        for ns in lane.namespaces:
            if ns.image:
                fmt = image.image_format(ns.image, ns.format, at.facts.path(ns.image))
                steps += image.create_step(ns.image, ns.size, fmt, at)
        if lane.pmr and lane.pmr_file:
            steps += image.create_step(lane.pmr_file, lane.pmr, "raw", at)
        return tuple(steps)

    def devices(self, lane: EmulatedSpec, at: Context) -> tuple[Device, ...]:
        nodes = tuple(_node(ns, number, at) for number, ns in enumerate(lane.namespaces))
        if at.hot:
            properties = {**_controller(lane, at), "drive": nodes[0].node_name, **_blocks(lane.namespaces[0])}
            return (*nodes, Frontend(driver="nvme", id=at.id, properties=properties, slot=True))
        pmr, subsystem = _pmr(lane, at), _subsys(lane, at)
        controller = Frontend(driver="nvme", id=at.id, properties=_controller(lane, at), slot=True)
        namespaces = tuple(
            Frontend(driver="nvme-ns", id=f"{at.id}-ns{nsid}", properties=_namespace(ns, nsid, node, at))
            for (nsid, ns), node in zip(_numbered(lane), nodes, strict=True)
        )
        return (*nodes, *pmr, *subsystem, controller, *namespaces)

    def claims(self, lane: EmulatedSpec, at: Context) -> tuple[Claim, ...]:
        claims: list[Claim] = [
            ControllerClaim(
                lane=at.index,
                device_id=at.id,
                serial=serial(lane, at),
                model="QEMU NVMe Ctrl",
                vendor=VENDOR,
                device=DEVICE,
                namespaces=len(lane.namespaces),
                subsystem_nqn=lane.nqn,
            )
        ]
        proven = False
        for nsid, ns in _numbered(lane):
            locator = Locator(device_id=at.id, nsid=nsid)
            claims.append(
                BlockClaim(
                    lane=at.index,
                    locator=locator,
                    size=_visible_size(ns, at),
                    block_size=ns.block_size,
                    zoned="host-managed" if ns.zoned else "none",
                    metadata_size=ns.metadata_size,
                    read_only=None if ns.read_only else False,  # see NVME_READ_ONLY
                )
            )
            path = ns.device or ns.image
            seen = at.facts.fingerprint(path)
            if seen is not None and image.image_format(path, ns.format, at.facts.path(path)) == "raw":
                claims.append(ContentClaim(lane=at.index, locator=locator, ranges=seen.ranges, sha256=seen.sha256))
            if lane.write_proof and not proven and not ns.read_only:
                # A zone is written from its write pointer on: the start of the first zone.
                claims.append(write_claim(path, locator, at, offset=0 if ns.zoned else PROOF_OFFSET))
                proven = True
        return tuple(claims)


def serial(lane: EmulatedSpec, at: Context) -> str:
    """The serial, or one made of the names, within the 20 characters that NVMe has."""
    return lane.serial or f"{at.spec.machine.name}-{at.id}"[-20:]


def _subsystem(lane: EmulatedSpec) -> bool:
    return bool(lane.nqn or lane.fdp or lane.vfs)


def _numbered(lane: EmulatedSpec) -> tuple[tuple[int, EmulatedNamespace], ...]:
    """Every namespace with its identifier: its own, or the next that is free."""
    taken = {ns.nsid for ns in lane.namespaces if ns.nsid}
    numbered: list[tuple[int, EmulatedNamespace]] = []
    for ns in lane.namespaces:
        nsid = ns.nsid or next(n for n in range(1, 258) if n not in taken)
        taken.add(nsid)
        numbered.append((nsid, ns))
    return tuple(numbered)


def _feature_refusals(lane: EmulatedSpec, at: Context) -> list[Refusal | None]:
    """Features that this QEMU's devices do not have, or that QEMU does not combine."""
    wants = (
        (lane.cmb, "nvme", "cmb_size_mb", "a Controller Memory Buffer"),
        (lane.pmr, "nvme", "pmrdev", "a Persistent Memory Region"),
        (lane.vfs, "nvme", "sriov_max_vfs", "SR-IOV"),
        (lane.fdp, "nvme-subsys", "fdp", "Flexible Data Placement"),
        (any(ns.zoned for ns in lane.namespaces), "nvme-ns", "zoned", "a zoned namespace"),
        (any(ns.metadata_size for ns in lane.namespaces), "nvme-ns", "ms", "metadata"),
    )
    reasons = [
        refuse.no_property(at.index, at.qemu, device, name, why) for wanted, device, name, why in wants if wanted
    ]
    if lane.nqn and not lane.nqn.startswith(QEMU_NQN):
        reasons.append(
            at.refuse(
                "nqn-prefix",
                f"QEMU's subsystems have NQNs that begin with {QEMU_NQN}",
                evidence=("QEMU hw/nvme/subsys.c",),
                remedy=f'write nqn = "{QEMU_NQN}{lane.nqn.rsplit(":", 1)[-1]}"',
            )
        )
    return reasons


def _hot_refusals(lane: EmulatedSpec, at: Context) -> list[Refusal]:
    """QEMU's nvme bus and subsystems take no devices after the start: one plain namespace can be hot-plugged."""
    plain = len(lane.namespaces) == 1 and not (_subsystem(lane) or lane.cmb or lane.pmr)
    ns = lane.namespaces[0] if lane.namespaces else None
    if plain and ns is not None and not (ns.zoned or ns.metadata_size or ns.handles or ns.nsid > 1):
        return []
    return [
        at.refuse(
            "emulated-hotplug",
            "only a controller with one plain namespace can be attached to a running machine",
            evidence=("QEMU: neither nvme-ns nor nvme-subsys can be hot-plugged",),
            remedy="attach one plain namespace, or add the lane to the spec and start the machine anew",
        )
    ]


def _node(ns: EmulatedNamespace, number: int, at: Context) -> BlockNode:
    path = ns.device or ns.image
    fmt = "raw" if ns.device else image.image_format(path, ns.format, at.facts.path(path))
    return image.blockdev(f"{at.id}-disk{number}", path, fmt, at, read_only=ns.read_only)


def _controller(lane: EmulatedSpec, at: Context) -> dict[str, object]:
    queues = lane.queues or at.vcpus
    properties: dict[str, object] = {"serial": serial(lane, at)}
    if "ioeventfd" in at.qemu.devices.get("nvme", ()):
        properties["ioeventfd"] = lane.ioeventfd
    if _subsystem(lane):
        properties["subsys"] = f"{at.id}-subsys"
    if lane.vfs:
        # nvme_check_params: two flexible queues and one vector a function at least, and two queue pairs left over.
        flexible = 2 * lane.vfs
        properties |= {
            "sriov_max_vfs": lane.vfs,
            "sriov_vq_flexible": flexible,
            "sriov_vi_flexible": flexible,
            "max_ioqpairs": flexible + max(queues, 1) + 1,
            "msix_qsize": flexible + queues + 1,
        }
    else:
        properties |= {"max_ioqpairs": queues, "msix_qsize": queues + 1}
    if lane.cmb:
        properties["cmb_size_mb"] = lane.cmb // MIB
    if lane.pmr:
        properties["pmrdev"] = f"{at.id}-pmr"
    return properties


def _pmr(lane: EmulatedSpec, at: Context) -> tuple[Device, ...]:
    if not lane.pmr:
        return ()
    if lane.pmr_file:
        return (
            Object(
                qom_type="memory-backend-file",
                id=f"{at.id}-pmr",
                properties={"size": lane.pmr, "mem-path": lane.pmr_file, "share": True},
            ),
        )
    return (Object(qom_type="memory-backend-ram", id=f"{at.id}-pmr", properties={"size": lane.pmr, "share": True}),)


def _subsys(lane: EmulatedSpec, at: Context) -> tuple[Device, ...]:
    if not _subsystem(lane):
        return ()
    properties: dict[str, object] = {"nqn": lane.nqn.removeprefix(QEMU_NQN) or f"{at.spec.machine.name}-{at.id}"}
    if lane.fdp:
        properties |= {
            "fdp": True,
            "fdp.nrg": lane.fdp.reclaim_groups,
            "fdp.nruh": lane.fdp.handles,
            "fdp.runs": lane.fdp.reclaim_unit,
        }
    return (Frontend(driver="nvme-subsys", id=f"{at.id}-subsys", properties=properties),)


def _blocks(ns: EmulatedNamespace) -> dict[str, object]:
    return {"logical_block_size": ns.block_size, "physical_block_size": ns.block_size}


def _namespace(ns: EmulatedNamespace, nsid: int, node: BlockNode, at: Context) -> dict[str, object]:
    properties: dict[str, object] = {"drive": node.node_name, "bus": at.id, "nsid": nsid, **_blocks(ns)}
    if ns.metadata_size:
        properties |= {"ms": ns.metadata_size, "pi": ns.protection}
    if ns.uuid:
        properties["uuid"] = ns.uuid
    if ns.handles:
        properties["fdp.ruhs"] = ";".join(str(handle) for handle in ns.handles)
    if ns.zoned:
        properties |= {
            "zoned": True,
            "zoned.zone_size": ns.zoned.zone_size,
            "zoned.zone_capacity": ns.zoned.zone_capacity or ns.zoned.zone_size,
            "zoned.max_open": ns.zoned.max_open,
            "zoned.max_active": ns.zoned.max_active,
        }
    return properties


def _visible_size(ns: EmulatedNamespace, at: Context) -> int:
    """What the guest sees of an image: whole blocks, less the room for metadata, in whole zones (QEMU hw/nvme/ns.c)."""
    seen = at.facts.path(ns.device or ns.image)
    size = seen.virtual_size or ns.size
    visible = size // (ns.block_size + ns.metadata_size) * ns.block_size
    return visible // ns.zoned.zone_size * ns.zoned.zone_size if ns.zoned else visible
