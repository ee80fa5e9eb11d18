"""Where a machine runs: the NUMA node of its drives and DAX devices, so that no transfer crosses between nodes.

Memory (but beside QEMU's own NVMe driver), hugepages, vCPUs, iothreads and targets all go there. Drives on two nodes
are said, with the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Facts
from nvlane.lanes.subjects import drives
from nvlane.plan.plan import Note, Refusal
from nvlane.spec.document import Spec
from nvlane.spec.lane import Backing, Nvdimm, Userspace


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`node` is where hugepages are taken; `cpus` and `bind` (the node to bind memory to, -1: none) are set only where
    there is more than one node and a reason to choose."""

    node: int
    cpus: frozenset[int] = frozenset()
    bind: int = -1


def place(spec: Spec, facts: Facts) -> Placement:
    """The node that the spec names, else that of the first drive or DAX device that has one, else the first."""
    node = spec.machine.node
    if node is None:
        node = next(iter(_drive_nodes(spec, facts)), None)
    first = min((n.node for n in facts.nodes), default=0)
    if node is None or len(facts.nodes) < 2:
        return Placement(node=first if node is None else node)
    cpus = next((n.cpus for n in facts.nodes if n.node == node), frozenset())
    return Placement(node=node, cpus=cpus, bind=-1 if _is_pinned_first(spec) else node)


def _is_pinned_first(spec: Spec) -> bool:
    """QEMU opens its NVMe driver before it makes guest memory, and the driver pins each block of memory as it appears
    (util/vfio-helpers.c, the RAM block notifier). mbind(2) then cannot move what lies on another node, and QEMU ends
    with 'cannot bind memory to host NUMA nodes' (backends/hostmem.c): such a machine has its vCPUs placed only."""
    return any(isinstance(lane, Userspace) for lane in spec.lanes)


def refusals(spec: Spec, facts: Facts) -> tuple[Refusal, ...]:
    node = spec.machine.node
    known = [n.node for n in facts.nodes]
    if node is None or not known or node in known:
        return ()
    return (
        Refusal(
            code="no-node",
            lane=None,
            reason=f"machine.node is {node}, and this host has the NUMA nodes {', '.join(map(str, known))}",
            remedy="name one of those, or leave it out",
        ),
    )


def notes(spec: Spec, facts: Facts) -> tuple[Note, ...]:
    return (*_unbound_note(spec, facts), *_spread_note(spec, facts))


def _unbound_note(spec: Spec, facts: Facts) -> tuple[Note, ...]:
    where = place(spec, facts)
    if not where.cpus or where.bind >= 0:
        return ()
    text = (
        f"vCPUs are placed on NUMA node {where.node}, guest memory is not bound to it: QEMU's NVMe driver pins memory "
        f"before it can be bound; 'numactl --preferred={where.node} nvlane up' asks for it there"
    )
    return (Note(lane=None, text=text),)


def _spread_note(spec: Spec, facts: Facts) -> tuple[Note, ...]:
    nodes = _drive_nodes(spec, facts)
    if len(set(nodes)) < 2:
        return ()
    where = ", ".join(map(str, sorted(set(nodes))))
    text = f"drives and DAX devices are on the NUMA nodes {where}: the machine runs on one of them, "
    return (Note(lane=None, text=text + "and transfers of the others cross; use one machine a node for full speed"),)


def _drive_nodes(spec: Spec, facts: Facts) -> list[int]:
    found = [find_drive(facts, text) for text in drives(spec)]
    nodes = [f.function.numa_node for f in found if isinstance(f, Located)]
    named = {lane.path for lane in spec.lanes if isinstance(lane, Nvdimm) and lane.backing is Backing.DAX}
    nodes += [device.numa_node for device in facts.dax_devices if device.path in named]
    return [node for node in nodes if node >= 0]
