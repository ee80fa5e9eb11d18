"""One spec and the facts make one plan: the lanes together, the machine around them, hugepages added up.

Pure: the same input gives the byte-equal plan. Refusals of all lanes are gathered, so that a person sees all of them
at once; with any, there are no steps.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable

from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Facts
from nvlane.lanes import machine, pinning, placement
from nvlane.lanes.context import Context
from nvlane.lanes.drive import memlock_needed
from nvlane.lanes.machine import memory_pages
from nvlane.lanes.table import LANES
from nvlane.model.device import MEMORY_SLOTS, Device, Frontend, MachineDevice, MemoryNeeds, slot_room
from nvlane.model.pci import PciAddress
from nvlane.plan import refuse
from nvlane.plan.engine import Engines
from nvlane.plan.fabrics_step import ConnectFabric
from nvlane.plan.plan import Note, Plan, Refusal
from nvlane.plan.pool import free_pages
from nvlane.plan.step import BindDriver, LoadModule, MakeDirectory, PlugDevices, ReserveHugepages, StartMachine, Step
from nvlane.spec.document import Spec
from nvlane.spec.lane import LaneKind

#: Slots for memory devices that are kept free for hot-plug.
SPARE_DIMMS = 2


def make_plan(spec: Spec, facts: Facts, engines: Engines) -> Plan:
    """Everything that `nvlane up` would do for a spec, or why not."""
    contexts = contexts_of(spec, facts, engines)
    refusals = [*machine.refusals(spec, facts), *placement.refusals(spec, facts)]
    for at in contexts:
        refusals += LANES[spec.lanes[at.index].KIND].refusals(spec.lanes[at.index], at)
    refusals += _drives_twice(spec, facts)
    refusals += pinning.refusals(contexts)
    if refusals:
        return Plan(machine=None, refusals=_unique(refusals))
    needs = _join(LANES[spec.lanes[at.index].KIND].needs(spec.lanes[at.index], at) for at in contexts)
    devices = tuple(d for at in contexts for d in LANES[spec.lanes[at.index].KIND].devices(spec.lanes[at.index], at))
    crowded = _no_room(spec, devices, needs)
    if crowded:
        return Plan(machine=None, refusals=crowded)
    body = machine.describe(spec, facts, _with_spare(needs))
    steps = [step for at in contexts for step in LANES[spec.lanes[at.index].KIND].steps(spec.lanes[at.index], at)]
    pages = memory_pages(body, placement.place(spec, facts).node)
    steps, short = net_hugepages([*pages, *steps], facts)
    if short:
        return Plan(machine=None, refusals=_unique(short))
    start = StartMachine(
        binary=facts.qemu.path if facts.qemu else spec.machine.qemu,
        machine=body,
        devices=devices,
        memlock=memlock_needed(contexts[0]) if needs.pinned else None,
    )
    return Plan(
        machine=body,
        notes=(*placement.notes(spec, facts), *machine.notes(spec, facts, body), *_notes(spec, contexts)),
        steps=(*_directories(facts, body), *steps, start),
        devices=devices,
        claims=tuple(
            claim for at in contexts for claim in LANES[spec.lanes[at.index].KIND].claims(spec.lanes[at.index], at)
        ),
    )


def make_attach_plan(spec: Spec, index: int, facts: Facts, engines: Engines, running: MachineDevice) -> Plan:
    """What `nvlane attach` would do: one lane (the `index`th of `spec`) into a machine that runs."""
    contexts = contexts_of(spec, facts, engines)
    at = dataclasses.replace(contexts[index], running=running)
    table, lane = spec.lanes[index], LANES[spec.lanes[index].KIND]
    refusals = [*lane.refusals(table, at), *pinning.refusals(contexts)]
    if refusals:
        return Plan(machine=None, refusals=_unique(refusals))
    steps, short = net_hugepages(list(lane.steps(table, at)), facts)
    if short:
        return Plan(machine=None, refusals=_unique(short))
    devices = lane.devices(table, at)
    plug = PlugDevices(machine=running.name, qmp=f"{running.runtime}/qmp.sock", devices=devices)
    return Plan(
        machine=running,
        notes=lane.notes(table, at),
        steps=(*steps, plug),
        devices=devices,
        claims=lane.claims(table, at),
    )


def contexts_of(spec: Spec, facts: Facts, engines: Engines) -> tuple[Context, ...]:
    """What each lane of a spec is told."""
    where = placement.place(spec, facts)
    first = Context(
        spec=spec, index=0, facts=facts, engines=engines, memory=spec.machine.memory, maps=_maps(spec),
        node=where.node, bind=where.bind, cpus=where.cpus, sandbox=spec.machine.sandbox,
    )  # fmt: skip
    # A pinned lane locks memory devices too (an NVDIMM beside a VFIO device is mapped for its DMA).
    hotplug = sum(
        LANES[lane.KIND].needs(lane, dataclasses.replace(first, index=i)).hotplug for i, lane in enumerate(spec.lanes)
    )
    memory = spec.machine.memory + hotplug
    return tuple(dataclasses.replace(first, index=i, memory=memory) for i in range(len(spec.lanes)))


def _maps(spec: Spec) -> int:
    """How many times QEMU maps guest memory for DMA, each locking all of it: all vfio-pci devices share one container,
    every block node with driver=nvme opens its own (QEMU util/vfio-helpers.c, qemu_vfio_open_pci)."""
    alone = sum(lane.KIND is LaneKind.USERSPACE for lane in spec.lanes)
    return alone + any(lane.KIND is LaneKind.PASSTHROUGH for lane in spec.lanes)


def _drives_twice(spec: Spec, facts: Facts) -> tuple[Refusal, ...]:
    """The spec's own rules see two lanes with the same words; only facts see that two words mean one drive."""
    taken: dict[PciAddress, int] = {}
    refusals: list[Refusal] = []
    for index, lane in enumerate(spec.lanes):
        text = getattr(lane, "drive", "")
        found = find_drive(facts, text) if text else None
        if not isinstance(found, Located):
            continue
        first = taken.setdefault(found.function.address, index)
        if first != index:
            refusals.append(refuse.same_drive(index, spec.lane_name(first), text, found.function))
    return tuple(refusals)


def _join(needs: Iterable[MemoryNeeds]) -> MemoryNeeds:
    joined = MemoryNeeds()
    for need in needs:
        joined = MemoryNeeds(
            shared=joined.shared or need.shared,
            pinned=joined.pinned or need.pinned,
            slots=joined.slots + need.slots,
            hotplug=joined.hotplug + need.hotplug,
            nvdimm=joined.nvdimm or need.nvdimm,
            durable=_all_true(joined.durable, need.durable),
        )
    return joined


def _all_true(one: bool | None, other: bool | None) -> bool | None:
    """Of those that are known."""
    known = [value for value in (one, other) if value is not None]
    return all(known) if known else None


def _with_spare(needs: MemoryNeeds) -> MemoryNeeds:
    """A machine with memory devices has room to attach some more: address space costs nothing."""
    if not needs.slots:
        return needs
    slots = min(needs.slots + SPARE_DIMMS, MEMORY_SLOTS)
    return dataclasses.replace(needs, slots=slots, hotplug=2 * needs.hotplug)


def _no_room(spec: Spec, devices: tuple[Device, ...], needs: MemoryNeeds) -> tuple[Refusal, ...]:
    """More devices than a board takes."""
    slots = sum(1 for device in devices if isinstance(device, Frontend) and device.slot)
    room = slot_room(spec.machine.type)
    reasons: list[Refusal] = []
    if slots > room - machine.SPARE_PORTS:
        reasons.append(
            Refusal(
                code="too-many-devices",
                lane=None,
                reason=f"the lanes need {slots} PCI slots, and a {spec.machine.type} has {room - machine.SPARE_PORTS}",
                evidence=(f"{machine.SPARE_PORTS} are kept free for hot-plug",),
                remedy="spread the lanes over several machines, or put several namespaces on one controller",
            )
        )
    if needs.slots > MEMORY_SLOTS:
        reasons.append(
            Refusal(
                code="too-many-dimms",
                lane=None,
                reason=f"the lanes are {needs.slots} memory devices, and a machine has {MEMORY_SLOTS}",
                evidence=("QEMU include/hw/acpi/acpi_dev_interface.h: ACPI_MAX_RAM_SLOTS",),
                remedy="make fewer and larger ones",
            )
        )
    return tuple(reasons)


def _directories(facts: Facts, body: MachineDevice) -> tuple[Step, ...]:
    return (MakeDirectory(path=facts.runtime_dir, mode=0o755), MakeDirectory(path=body.runtime))


def net_hugepages(steps: list[Step], facts: Facts) -> tuple[list[Step], list[Refusal]]:
    """Add up what the machine and its lanes want of each pool, take off what is free, and reserve that first.

    A module that two lanes load is loaded once, a drive that is the sibling of another lane's is moved once, and a
    subsystem with namespaces for two lanes is connected once.
    """
    wanted: dict[tuple[int, int], int] = defaultdict(int)
    others: list[Step] = []
    once: set[Step] = set()
    for step in steps:
        if isinstance(step, ReserveHugepages):
            wanted[step.node, step.page_size] += step.pages
        elif not isinstance(step, LoadModule | BindDriver | ConnectFabric):
            others.append(step)
        elif step not in once:
            once.add(step)
            others.append(step)
    reserve: list[Step] = []
    short: list[Refusal] = []
    for (node, page_size), pages in sorted(wanted.items()):
        reason = refuse.hugepages(None, facts, node=node, page_size=page_size, pages=pages, why="this machine")
        if reason is not None:
            short.append(reason)
            continue
        free = free_pages(facts, node, page_size)
        if pages > free:
            denied = refuse.not_root(None, facts, "reserving hugepages")
            short += [denied] if denied else []
            reserve.append(ReserveHugepages(node=node, page_size=page_size, pages=pages - free))
    return [*reserve, *others], short


def _notes(spec: Spec, contexts: tuple[Context, ...]) -> tuple[Note, ...]:
    return tuple(note for at in contexts for note in LANES[spec.lanes[at.index].KIND].notes(spec.lanes[at.index], at))


def _unique(refusals: list[Refusal]) -> tuple[Refusal, ...]:
    return tuple(dict.fromkeys(refusals))
