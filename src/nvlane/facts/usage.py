"""Who uses a drive: the reader that keeps nvlane from taking a drive away from somebody.

A `Survey` is made once and answers for any number of drives. First every use is put on the block node that it is
directly on (`marks`: a mount on dm-0, a swap area on nvme0n1p3); then, for a drive, everything that stands on one of
its namespaces or partitions is walked upwards, and all marks on the way are uses of the drive. The last word is the
kernel's: `apply` claims each node with O_EXCL before it takes a drive, so a use that nothing here can show (a file
system in a hidden mount namespace, of a kind without sysfs entries) still stops it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nvlane.facts.attribute import attribute, device_number, link_name, names, number
from nvlane.facts.blocks import Block, Blocks, read_blocks
from nvlane.facts.handles import Handle, read_handles
from nvlane.facts.kernel_claims import KernelClaim, read_kernel_claims
from nvlane.facts.mounts import Mounts, read_mounts
from nvlane.facts.nvme_nodes import controllers, generic_name, namespace_names
from nvlane.facts.shape import Use, UseKind
from nvlane.facts.use_marks import BCACHE_REGISTERED, Mark, mark_nodes
from nvlane.facts.volume_groups import active_volume_group, read_zfs_members, zfs_signature
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress

_HOLDER_NAMES: Final = ((r"md[_\d].*", UseKind.MD), (r"bcache\d+", UseKind.BCACHE), (r"loop\d+", UseKind.LOOP))
_DM_UUIDS: Final = (
    (r"LVM-.*", UseKind.LVM),
    (r"CRYPT-.*", UseKind.CRYPT),
    (r"(part\d+-)?mpath-.*", UseKind.MULTIPATH),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Everything on the host that uses a block device, seen once. `zfs_silent`: ZFS is loaded and tells nothing."""

    blocks: Blocks
    mounts: Mounts
    handles: tuple[Handle, ...]
    claims: tuple[KernelClaim, ...]
    marks: Mapping[str, tuple[Mark, ...]]
    zfs_silent: bool
    unknown: tuple[str, ...]


def take_survey(host: HostReader) -> Survey:
    """Look at the whole host once; some 20 ms on an ordinary one."""
    blocks = read_blocks(host)
    mounts = read_mounts(host)
    handles, closed = read_handles(host, mounts.everywhere)
    claims = read_kernel_claims(host)
    zfs = read_zfs_members(host, blocks)
    marks, strangers = mark_nodes(host, blocks, mounts, handles, claims, zfs or {})
    unknown = list(strangers)
    if mounts.hidden or closed:
        unknown.append(
            f"{max(mounts.hidden, closed)} processes do not show this user their mounts and open files; "
            "run as root with CAP_SYS_PTRACE"
        )
    return Survey(
        blocks=blocks, mounts=mounts, handles=handles, claims=claims, marks=marks,
        zfs_silent=zfs is None, unknown=tuple(unknown),
    )  # fmt: skip


def read_uses(host: HostReader, target: PciAddress | Sequence[str], survey: Survey | None = None) -> tuple[Use, ...]:
    """Every use of a PCI function that is (or was) an NVMe controller, or of block nodes given by name, each with
    evidence. A drive in no use at all gives ()."""
    survey = survey or take_survey(host)
    if isinstance(target, PciAddress):
        return _uses_of_function(host, survey, target)
    return _uses_of_nodes(host, survey, target)


def _uses_of_function(host: HostReader, survey: Survey, address: PciAddress) -> tuple[Use, ...]:
    uses: list[Use] = []
    for controller in controllers(host, address):
        namespaces = namespace_names(host, controller)
        uses.extend(_uses_of_nodes(host, survey, namespaces))
        uses.extend(_uses_of_chars(host, survey, controller, namespaces))
    uses.extend(_uses_by_userspace_driver(host, survey, address))
    for vf in _virtual_functions(host, address):
        # They go when their controller goes (drivers/nvme/host/pci.c, nvme_remove), whoever has them.
        theirs = _uses_of_function(host, survey, vf)
        uses.extend(replace(use, evidence=f"{use.evidence}, on its virtual function {vf}") for use in theirs)
    return tuple(dict.fromkeys(uses))


def _virtual_functions(host: HostReader, address: PciAddress) -> list[PciAddress]:
    base = address.sysfs
    if number(host, f"{base}/sriov_numvfs") == 0:
        return []
    links = (link_name(host, f"{base}/{name}") for name in names(host, base) if re.fullmatch(r"virtfn\d+", name))
    return [PciAddress.parse(link) for link in links if link]


def _uses_of_nodes(host: HostReader, survey: Survey, nodes: Sequence[str]) -> tuple[Use, ...]:
    """Uses of disks with their partitions (and of partitions by themselves), and of all that stands on them."""
    bases = tuple(dict.fromkeys(base for node in nodes for base in survey.blocks.parts(node)))
    zfs = zfs_signature(host, bases) if survey.zfs_silent else {}
    uses: list[Use] = []
    for base in bases:
        found = [Use(kind=m.kind, device=base, evidence=m.evidence) for m in survey.marks.get(base, ())]
        for above in survey.blocks.above(base):
            if (kind := _holder_kind(above.block)) is not None:
                evidence = f"{above.evidence}{_name_of(above.block)}{_through(above.chain[:-1])}"
                found.append(Use(kind=kind, device=base, evidence=evidence))
            found.extend(
                Use(kind=m.kind, device=base, evidence=f"{m.evidence}{_through(above.chain)}")
                for m in survey.marks.get(above.block.name, ())
            )
        if base in zfs:
            found.append(Use(kind=UseKind.ZFS, device=base, evidence=zfs[base]))
        if any(use.kind is UseKind.BCACHE and not use.evidence.endswith(BCACHE_REGISTERED) for use in found):
            # The disk that bcache made of it says more than that it is registered.
            found = [use for use in found if not use.evidence.endswith(BCACHE_REGISTERED)]
        lvm_seen = any(use.kind is UseKind.LVM for use in found)
        if not lvm_seen and (evidence := active_volume_group(host, survey.blocks, base)):
            found.append(Use(kind=UseKind.LVM, device=base, evidence=evidence))
        uses.extend(found)
    return tuple(dict.fromkeys(uses))


def _holder_kind(block: Block) -> UseKind | None:
    """What a device that stands on another makes of it; None for a partition, which is only a step on the way."""
    if block.disk:
        return None
    if block.name.startswith("dm-"):
        return next((kind for form, kind in _DM_UUIDS if re.fullmatch(form, block.dm_uuid)), UseKind.DM)
    return next((kind for form, kind in _HOLDER_NAMES if re.fullmatch(form, block.name)), UseKind.HOLDER)


def _name_of(block: Block) -> str:
    return f" is {block.dm_name} ({block.dm_uuid or 'no uuid'})" if block.dm_name else ""


def _through(chain: Sequence[str]) -> str:
    return f", through {' - '.join(chain)}" if len(chain) > 1 else ""


def _uses_of_chars(host: HostReader, survey: Survey, controller: str, namespaces: Iterable[str]) -> list[Use]:
    """Handles on, and kernel claims of, the character nodes of a controller and its namespaces."""
    nodes = {controller: f"/sys/class/nvme/{controller}/dev"}
    for namespace in namespaces:
        nodes[generic_name(namespace)] = f"/sys/class/nvme-generic/{generic_name(namespace)}/dev"
    uses: list[Use] = []
    for name, path in nodes.items():
        own = device_number(attribute(host, path))
        uses.extend(
            Use(kind=UseKind.OPEN, device=name, evidence=handle.evidence)
            for handle in survey.handles
            if handle.kind == "char" and handle.number == own
        )
        uses.extend(
            Use(kind=UseKind.EXCLUSIVE, device=name, evidence=claim.evidence)
            for claim in survey.claims
            if claim.device == f"/dev/{name}"
        )
    return uses


def _uses_by_userspace_driver(host: HostReader, survey: Survey, address: PciAddress) -> list[Use]:
    """Processes that drive the function themselves: through the node of its VFIO group (then every function of the
    group is theirs), its VFIO device node, its UIO node, or its BARs in sysfs."""
    base = address.sysfs
    group = link_name(host, f"{base}/iommu_group")
    nodes = {f"/dev/vfio/devices/{name}" for name in names(host, f"{base}/vfio-dev")}
    nodes.update(f"/dev/{name}" for name in names(host, f"{base}/uio"))
    if group:
        nodes.update((f"/dev/vfio/{group}", f"/dev/vfio/noiommu-{group}"))
    bars = f"{host.realpath(base)}/resource"
    return [
        Use(kind=UseKind.OPEN, device=str(address), evidence=handle.evidence)
        for handle in survey.handles
        if handle.path in nodes or handle.path.startswith(bars)
    ]
