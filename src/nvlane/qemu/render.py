"""Typed devices to QEMU's arguments: once, last, and nowhere else.

The order is: the machine, its memory, its channels, objects, block nodes, character devices, then devices in
the order in which their buses appear; the user's further arguments come last, as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nvlane.model.cpus import format_cpus
from nvlane.model.device import BlockNode, Device, DirectBoot, Frontend, MachineDevice, Object, SocketChardev
from nvlane.model.size import MIB
from nvlane.qemu import board
from nvlane.qemu.syntax import (
    chardev_options,
    compact,
    device_properties,
    escape,
    node_options,
    object_properties,
)


def argv(binary: str, machine: MachineDevice, devices: tuple[Device, ...], fds: Mapping[str, int]) -> tuple[str, ...]:
    """The whole command line.

    `fds` has the descriptors of sockets that listen already, by name (`board.CHANNELS`). A socket that is not
    in it is made by QEMU itself at its path: with an empty `fds` the result can be pasted into a shell.
    """
    return (
        binary,
        *_identity(machine),
        *_memory(machine),
        *_behaviour(machine),
        *_channels(machine, fds),
        *_netdev(machine),
        *_boot(machine),
        *_devices(machine, devices),
        *machine.extra,
    )


def socket_path(machine: MachineDevice, name: str) -> str:
    """Where the socket of a channel stands."""
    return f"{machine.runtime}/{name}.sock"


def _identity(machine: MachineDevice) -> Iterator[str]:
    yield from ("-name", f"guest={escape(machine.name)},debug-threads=on")
    yield from ("-uuid", machine.uuid)
    yield from ("-machine", ",".join(_machine_options(machine)))
    yield from ("-accel", machine.accelerator)
    yield from ("-cpu", machine.cpu_model)
    yield from ("-smp", f"cpus={machine.cpus}")


def _machine_options(machine: MachineDevice) -> Iterator[str]:
    yield machine.machine_type
    # None of these is seen by a guest of today but as boot time: the HPET is calibrated, VMware's port
    # probed, and SMM entered by the firmware, which needs it only for secure boot.
    yield from ("hpet=off", "vmport=off", "smm=off")
    if isinstance(machine.boot, DirectBoot) and not machine.extra and board.Board.of(machine.machine_type).ports:
        # Nothing of ours sits on the board's own AHCI and SMBus, and firmware and kernel look through both. A
        # user's further arguments may want them (-cdrom), an installed system may know them.
        yield from ("sata=off", "smbus=off")
    # A guest's memory, which may hold gigabytes of pinned pages, is no part of QEMU's core dump.
    yield "dump-guest-core=off"
    if machine.needs.nvdimm:
        yield "nvdimm=on"
    if machine.needs.durable:
        # What reaches the memory controller is safe: the guest's kernel shows it as persistence_domain. It is said of
        # all NVDIMMs together (ACPI 6.5, 5.2.25.9), so not if one of them loses it, and then it is 'unknown'.
        yield "nvdimm-persistence=mem-ctrl"
    if not machine.numa:
        yield "memory-backend=mem0"


def _memory(machine: MachineDevice) -> Iterator[str]:
    size = f"size={_size(machine.memory)}"
    if machine.needs.hotplug:
        # maxmem without slots is refused (hw/core/machine.c), also for virtio-pmem, which takes no slot.
        slots = max(1, machine.needs.slots)
        size += f",slots={slots},maxmem={_size(machine.memory + machine.needs.hotplug)}"
    yield from ("-m", size)
    parts = [memory for memory, _ in machine.numa] or [machine.memory]
    for number, part in enumerate(parts):
        yield from ("-object", compact(object_properties(memory_backend(machine, number, part))))
    for number, (_, cpus) in enumerate(machine.numa):
        # A list of ranges is given as the key repeated (qemu-options.hx, -numa).
        ranges = ",".join(f"cpus={part}" for part in format_cpus(cpus).split(",") if part)
        yield from (
            "-numa",
            ",".join(filter(None, ("node", f"nodeid={number}", ranges, f"memdev=mem{number}"))),
        )


def memory_backend(machine: MachineDevice, number: int, size: int) -> Object:
    """Guest memory of `size` bytes. It is shared by construction wherever a lane needs that: there is no
    other place that makes a backend."""
    properties: dict[str, str | int | bool | tuple[int, ...]] = {"size": size}
    huge = machine.hugepage > 0
    if machine.hugetlbfs and huge:
        kind = "memory-backend-file"
        properties |= {"mem-path": machine.hugetlbfs, "share": True, "prealloc": True}
    elif machine.needs.shared or huge:
        kind = "memory-backend-memfd"
        properties["share"] = True
        if huge:
            # Without prealloc a short pool ends as SIGBUS in the running guest.
            properties |= {"hugetlb": True, "hugetlbsize": machine.hugepage, "prealloc": True}
    else:
        kind = "memory-backend-ram"
    if machine.memory_node >= 0:
        properties |= {"host-nodes": (machine.memory_node,), "policy": "bind"}
    return Object(qom_type=kind, id=f"mem{number}", properties=properties)


def _size(size: int) -> str:
    return f"{size // MIB}M" if size % MIB == 0 else f"{size}B"


def _behaviour(machine: MachineDevice) -> Iterator[str]:
    yield from ("-nodefaults", "-no-user-config")
    yield from ("-display", _display(machine))
    if machine.sandbox:
        # The bridge helper is a program of its own and set-user-id: it needs both of these.
        helper = "allow" if machine.network == "bridge" else "deny"
        yield from (
            "-sandbox",
            f"on,obsolete=deny,elevateprivileges={helper},spawn={helper},resourcecontrol=deny",
        )
    yield from ("-msg", "timestamp=on")


def _display(machine: MachineDevice) -> str:
    return f"vnc=unix:{escape(machine.runtime)}/vnc.sock" if machine.display == "vnc" else machine.display


def _channels(machine: MachineDevice, fds: Mapping[str, int]) -> Iterator[str]:
    for name in board.CHANNELS:
        where = f"fd={fds[name]}" if name in fds else f"path={escape(socket_path(machine, name))}"
        log = f",logfile={escape(machine.runtime)}/console.log,logappend=on" if name == "console" else ""
        yield from ("-chardev", f"socket,id={name},{where},server=on,wait=off{log}")
    yield from ("-mon", "chardev=qmp,mode=control")


def _netdev(machine: MachineDevice) -> Iterator[str]:
    if machine.network == "user":
        yield from ("-netdev", compact({"type": "user", "id": "net0"}))
    elif machine.network == "bridge":
        yield from ("-netdev", compact({"type": "bridge", "id": "net0", "br": machine.bridge}))


def _boot(machine: MachineDevice) -> Iterator[str]:
    if isinstance(machine.boot, DirectBoot):
        yield from ("-kernel", machine.boot.kernel)
        if machine.boot.initrd:
            yield from ("-initrd", machine.boot.initrd)
        if machine.boot.cmdline:
            yield from ("-append", machine.boot.cmdline)


def _devices(machine: MachineDevice, devices: tuple[Device, ...]) -> Iterator[str]:
    everything = (*board.root_ports(machine, devices), *board.board_devices(machine), *devices)
    buses = board.slot_buses(machine, devices)
    for item in everything:
        if isinstance(item, Object):
            yield from ("-object", compact(object_properties(item)))
    for item in everything:
        if isinstance(item, BlockNode):
            yield from ("-blockdev", compact(node_options(item)))
    for item in everything:
        if isinstance(item, SocketChardev):
            yield from ("-chardev", chardev_options(item))
    for item in everything:
        if isinstance(item, Frontend):
            yield from ("-device", compact(device_properties(item, buses.get(item.id, ""))))
