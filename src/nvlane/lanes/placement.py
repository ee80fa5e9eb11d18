"""Where a machine runs: the NUMA node of its drives, so that no transfer crosses between nodes.

Memory, hugepages, vCPUs, iothreads and targets all go there. Drives on two nodes are said, with the remedy.
"""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Facts
from nvlane.lanes.subjects import drives
from nvlane.plan.plan import Note, Refusal
from nvlane.spec.document import Spec


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """`node` is where hugepages are taken; `cpus` and `bind` (the node to bind memory to, -1: none) are set only where
    there is more than one node and a reason to choose."""

    node: int
    cpus: frozenset[int] = frozenset()
    bind: int = -1


def place(spec: Spec, facts: Facts) -> Placement:
    """The node that the spec names, else that of the first drive that has one, else the first."""
    node = spec.machine.node
    if node is None:
        node = next(iter(_drive_nodes(spec, facts)), None)
    first = min((n.node for n in facts.nodes), default=0)
    if node is None or len(facts.nodes) < 2:
        return Placement(node=first if node is None else node)
    cpus = next((n.cpus for n in facts.nodes if n.node == node), frozenset())
    return Placement(node=node, cpus=cpus, bind=node)


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
    nodes = _drive_nodes(spec, facts)
    if len(set(nodes)) < 2:
        return ()
    text = (
        f"the drives are on the NUMA nodes {', '.join(map(str, sorted(set(nodes))))}: the machine runs on one of them, "
    )
    return (Note(lane=None, text=text + "and transfers of the others cross; use one machine a node for full speed"),)


def _drive_nodes(spec: Spec, facts: Facts) -> list[int]:
    found = [find_drive(facts, text) for text in drives(spec)]
    return [f.function.numa_node for f in found if isinstance(f, Located) and f.function.numa_node >= 0]
