"""What every lane that takes a drive from the host has in common: finding it, refusing, binding, claiming.

A drive goes to VFIO with its whole IOMMU group: idle NVMe siblings are taken along and said, a sibling that is in use
or foreign is a refusal. Data on an unused drive is named in a note and never a refusal.
"""

from __future__ import annotations

from nvlane.facts.locate import Located, NotLocated, find_drive
from nvlane.facts.shape import Drive, Namespace, PciFunction
from nvlane.lanes.context import PROOF_LENGTH, PROOF_OFFSET, Context
from nvlane.model.claim import BlockClaim, Claim, ContentClaim, Locator, WriteClaim
from nvlane.model.size import GIB, format_size
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.step import BindDriver, LoadModule, Step

#: Locked beyond guest memory: QEMU's own queues and firmware regions, as libvirt allows for (qemu_domain.c).
MEMLOCK_SPARE = GIB


def locate(text: str, at: Context) -> Located:
    """The drive, for use once `refusals` found none."""
    found = find_drive(at.facts, text)
    assert isinstance(found, Located), "refusals() comes first"
    return found


def siblings(found: Located, at: Context) -> tuple[PciFunction, ...]:
    """The other functions of the drive's IOMMU group, bridges left out (they stay with pcieport)."""
    if found.function.iommu_group is None:
        return ()
    group = at.facts.group(found.function.iommu_group)
    return tuple(f for f in group if f.address != found.function.address and not f.is_bridge)


def memlock_needed(at: Context, *, target: bool = False) -> int:
    """Bytes that must be lockable: a target maps guest memory once, QEMU once for each VFIO container that it opens."""
    return at.memory * (1 if target else max(at.maps, 1)) + MEMLOCK_SPARE


def refusals(text: str, at: Context, *, target: bool = False) -> tuple[Refusal, ...]:
    """Every reason not to take this drive. `target`: for a target process instead of QEMU."""
    found = find_drive(at.facts, text)
    if isinstance(found, NotLocated):
        return (at.refuse("no-drive", found.reason, remedy=found.remedy),)
    address = found.function.address
    what = f"the drive {address}" + (f" (serial {found.drive.serial})" if found.drive.serial else "")
    reasons: list[Refusal | None] = [refuse.not_root(at.index, at.facts, "taking a drive from the host")]
    reasons += refuse.uses(at.index, what, found.drive.uses)
    reasons.append(refuse.no_vfio(at.index, at.facts))
    reasons.append(refuse.no_iommu(at.index, at.facts, found.function))
    reasons.append(refuse.functions_enabled(at.index, found.function, "take one of them (…/vf0)"))
    for sibling in siblings(found, at):
        reasons.append(refuse.functions_enabled(at.index, sibling, "move the drive to a slot with a group of its own"))
        reasons += refuse.busy_sibling(at.index, sibling, at.facts.drive(sibling.address))
    reasons.append(refuse.memlock(at.index, at.facts, memlock_needed(at, target=target)))
    return tuple(reason for reason in reasons if reason is not None)


def namespace_refusals(text: str, nsid: int, at: Context) -> tuple[Refusal, ...]:
    """A namespace that the drive does not have. Unknown while a drive is on vfio-pci and not remembered."""
    found = find_drive(at.facts, text)
    if isinstance(found, NotLocated) or not found.drive.controller or namespace(found.drive, nsid) is not None:
        return ()
    have = ", ".join(str(n.nsid) for n in found.drive.namespaces) or "none"
    return (
        at.refuse(
            "no-namespace",
            f"{found.function.address} has no namespace {nsid}",
            evidence=(f"namespaces of {found.drive.controller}: {have}",),
            remedy="name one that it has, or create it (nvme create-ns, nvme attach-ns)",
        ),
    )


def metadata_refusals(text: str, nsid: int, at: Context, *, whose: str = "QEMU") -> tuple[Refusal, ...]:
    """A namespace with metadata, which no driver in userspace takes here; `whose` driver is asked to."""
    found = find_drive(at.facts, text)
    ns = None if isinstance(found, NotLocated) else namespace(found.drive, nsid)
    if ns is None or not ns.metadata_size:
        return ()
    return (
        at.refuse(
            "namespace-metadata",
            f"namespace {nsid} of {text} has {ns.metadata_size} bytes of metadata a block; {whose}'s driver takes none",
            evidence=(f"metadata size: {ns.metadata_size} bytes (Identify Namespace, LBA format)",),
            remedy="take the passthrough lane, or format the namespace without metadata (which erases it)",
        ),
    )


def namespace(drive: Drive, nsid: int) -> Namespace | None:
    return next((n for n in drive.namespaces if n.nsid == nsid), None)


def notes(text: str, at: Context, *, write_proof: bool) -> tuple[Note, ...]:
    """What a person should know first: data that is there, siblings that come along, a far NUMA node."""
    found = locate(text, at)
    drive, function = found.drive, found.function
    lines = [f"{content.device} holds {content.what}; the guest gets it as it is" for content in drive.contents]
    if write_proof:
        lines.append(
            f"write_proof: the guest overwrites {format_size(PROOF_LENGTH)} at offset {format_size(PROOF_OFFSET)} "
            f"of {drive.serial or function.address}"
            + ("" if _read_back(found) else "; the host cannot read it back, for its kernel does not drive it")
        )
    for sibling in siblings(found, at):
        if sibling.driver != "vfio-pci":
            other = at.facts.drive(sibling.address)
            serial = f" (serial {other.serial})" if other and other.serial else ""
            lines.append(
                f"{sibling.address}{serial} shares IOMMU group {function.iommu_group} and goes to vfio-pci too"
            )
    node = at.spec.machine.node
    if node is not None and function.numa_node not in (-1, node):
        lines.append(
            f"the drive {function.address} is on NUMA node {function.numa_node} and the machine on node {node}: "
            f"every transfer crosses between them; leave machine.node out or set it to {function.numa_node}"
        )
    return tuple(Note(lane=at.index, text=line) for line in lines)


def bind_steps(text: str, at: Context, *, type1: bool = True) -> tuple[Step, ...]:
    """Load what is missing of VFIO, then move the drive and its idle siblings to vfio-pci."""
    found = locate(text, at)
    modules = ["vfio-pci", *(["vfio_iommu_type1"] if type1 else [])]
    steps: list[Step] = [LoadModule(name=name) for name in modules if not _loaded(name, at)]
    for function in (found.function, *siblings(found, at)):
        if function.driver == "vfio-pci" or (function.address != found.function.address and not function.driver):
            continue
        drive = at.facts.drive(function.address)
        steps.append(
            BindDriver(
                address=function.address,
                driver="vfio-pci",
                expect_driver=function.driver,
                expect_override=function.driver_override,
                expect_serial=drive.serial if drive and not drive.remembered else "",
                group=function.iommu_group,
                nvme=function.is_nvme,
            )
        )
    return tuple(steps)


def _loaded(name: str, at: Context) -> bool:
    return name.replace("-", "_") in {module.replace("-", "_") for module in at.facts.modules}


def content_claim(address: object, nsid: int, locator: Locator, at: Context) -> tuple[Claim, ...]:
    """The guest must find what the host read there, where the host could read."""
    seen = at.facts.fingerprint(f"{address}:{nsid}")
    if seen is None:
        return ()
    return (ContentClaim(lane=at.index, locator=locator, ranges=seen.ranges, sha256=seen.sha256),)


def block_claims(
    found: Located, ns: Namespace, locator: Locator, at: Context, *, write_proof: bool, read_only: bool = False
) -> tuple[Claim, ...]:
    """Size, blocks, content, and the write proof, of one namespace under any front end."""
    claims: list[Claim] = [
        BlockClaim(
            lane=at.index,
            locator=locator,
            size=ns.size,
            block_size=ns.block_size,
            read_only=True if read_only else None,
        )
    ]
    claims += content_claim(found.function.address, ns.nsid, locator, at)
    if write_proof and _read_back(found):
        claims.append(write_claim(f"serial:{found.drive.serial}:{ns.nsid}", locator, at))
    return tuple(claims)


def _read_back(found: Located) -> bool:
    """Whether the kernel's driver has the drive again after `down`, so that the host can read what was written."""
    return bool(found.drive.serial) and found.function.driver == "nvme"


def write_claim(host_path: str, locator: Locator, at: Context, *, offset: int = PROOF_OFFSET) -> WriteClaim:
    return WriteClaim(
        lane=at.index,
        locator=locator,
        offset=offset,
        length=PROOF_LENGTH,
        host_path=host_path,
    )
