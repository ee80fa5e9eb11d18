"""Rules of the [machine] table."""

from __future__ import annotations

import dataclasses

from nvlane.model.cpus import format_cpus
from nvlane.model.size import MIB, format_size
from nvlane.spec.document import Spec
from nvlane.spec.machine import Machine, MemoryBacking, Network
from nvlane.spec.problem import Problem, Problems


def name_is_free(spec: Spec) -> Problems:
    """No machine is called `host`: that is what `nvlane host` keeps its own record under."""
    if spec.machine.name == "host":
        yield Problem(place="machine.name", message="'host' is nvlane's own", remedy="give the machine another name")


def boots_one_way(spec: Spec) -> Problems:
    """A machine boots from an image or from a kernel, not from both."""
    if spec.machine.image and spec.machine.kernel:
        message = "the machine has an image to boot from too"
        yield Problem(place="machine.kernel", message=message, remedy="drop image or kernel; a further disk is a lane")


def kernel_keys_have_a_kernel(spec: Spec) -> Problems:
    """`initrd` and `cmdline` belong to `kernel`, `image_format` to `image`."""
    machine = spec.machine
    for key, value in (("initrd", machine.initrd), ("cmdline", machine.cmdline)):
        if value and not machine.kernel:
            yield Problem(
                place=f"machine.{key}", message="stands without a kernel", remedy=f"add kernel, or drop {key}"
            )
    if machine.image_format and not machine.image:
        message = "stands without an image"
        yield Problem(place="machine.image_format", message=message, remedy="add image, or drop image_format")


def bridge_matches_network(spec: Spec) -> Problems:
    """`bridge` and network = "bridge" go together."""
    machine = spec.machine
    if machine.bridge and machine.network is not Network.BRIDGE:
        message = f'is not used by network = "{machine.network}"'
        yield Problem(place="machine.bridge", message=message, remedy='write network = "bridge"')
    if machine.network is Network.BRIDGE and not machine.bridge:
        message = "the key 'bridge' is missing"
        yield Problem(place="machine.network", message=message, remedy='name the bridge of the host, as bridge = "br0"')


def hugepage_size_is_one(spec: Spec) -> Problems:
    """`hugepage_size` is a power of two from 2MiB; memory of hugepages is a multiple of it, node by node."""
    machine = spec.machine
    size = machine.hugepage_size
    yield from page_size(size, "machine.hugepage_size")
    if machine.memory_backing is not MemoryBacking.HUGEPAGES or not size:
        return
    parts = [("machine.memory", machine.memory)]
    parts += [(f"machine.numa[{index}].memory", node.memory) for index, node in enumerate(machine.numa)]
    for place, memory in parts:
        if memory % size:
            message = f"{format_size(memory)} is no multiple of hugepage_size ({format_size(size)})"
            remedy = f"write {format_size((memory // size + 1) * size)}"
            yield Problem(place=place, message=message, remedy=remedy)


def page_size(size: int, place: str) -> Problems:
    """A size that hugepages can have: a power of two from 2MiB."""
    if size < 2 * MIB or size & (size - 1):
        message = f"{format_size(size)} is not a size that hugepages have"
        yield Problem(place=place, message=message, remedy="write 2MiB or 1GiB")


def guest_nodes_add_up(spec: Spec) -> Problems:
    """The guest's NUMA nodes share out all of its memory and each of its vCPUs exactly once."""
    machine = spec.machine
    if not machine.numa:
        return
    total = sum(node.memory for node in machine.numa)
    if total != machine.memory:
        message = f"the nodes have {format_size(total)} of memory and the machine {format_size(machine.memory)}"
        yield Problem(place="machine.numa", message=message, remedy=f"share out {format_size(machine.memory)}")
    seen: set[int] = set()
    for index, node in enumerate(machine.numa):
        place = f"machine.numa[{index}].cpus"
        if twice := node.cpus & seen:
            message = f"vCPU {format_cpus(twice)} is in another node too"
            yield Problem(place=place, message=message, remedy="give each vCPU to one node")
        seen |= node.cpus
        if beyond := {cpu for cpu in node.cpus if cpu >= machine.cpus}:
            message = f"there is no vCPU {format_cpus(beyond)}; the machine has 0-{machine.cpus - 1}"
            yield Problem(place=place, message=message, remedy=f"name vCPUs of 0-{machine.cpus - 1}, or raise cpus")
    if missing := set(range(machine.cpus)) - seen:
        message = f"vCPU {format_cpus(missing)} is in no node"
        yield Problem(place="machine.numa", message=message, remedy="give each vCPU to one node")


def domains_are_described_once(spec: Spec) -> Problems:
    """With `connect` the machine is libvirt's: only `name` stands beside it."""
    machine = spec.machine
    if not machine.connect:
        return
    plain = Machine(name=machine.name, connect=machine.connect)
    for field in dataclasses.fields(machine):
        if getattr(machine, field.name) != getattr(plain, field.name):
            message = "is the libvirt domain's to say, for the machine has connect"
            yield Problem(place=f"machine.{field.name}", message=message, remedy=f"drop {field.name}, or connect")


RULES = (
    domains_are_described_once,
    name_is_free,
    boots_one_way,
    kernel_keys_have_a_kernel,
    bridge_matches_network,
    hugepage_size_is_one,
    guest_nodes_add_up,
)
