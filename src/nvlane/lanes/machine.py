"""The machine around the lanes: accelerator, memory, boot, network; what refuses it, how QEMU is told of it."""

from __future__ import annotations

import dataclasses
import uuid

from nvlane.facts.shape import Facts, Qemu
from nvlane.lanes.placement import place
from nvlane.model.device import BootDisk, DirectBoot, MachineDevice, MemoryNeeds
from nvlane.model.size import format_size
from nvlane.plan import refuse
from nvlane.plan.plan import Note, Refusal
from nvlane.plan.pool import free_pages
from nvlane.plan.step import ReserveHugepages, Step
from nvlane.spec.document import Spec
from nvlane.spec.machine import Accelerator, MemoryBacking, Network

#: Names of machines become UUIDs in this name space, so that a machine keeps its UUID from plan to plan.
_NAMESPACE = uuid.UUID("6f8a2c1e-2b53-5d0a-9a6e-0d2f6c5b7e10")
SOCKET_PATH_MAX = 107
#: Root ports kept free for hot-plug.
SPARE_PORTS = 2


def refusals(spec: Spec, facts: Facts) -> tuple[Refusal, ...]:
    """What is wrong with the machine as such, whatever its lanes."""
    machine, reasons = spec.machine, list[Refusal | None]()
    qemu = facts.qemu or Qemu(path=machine.qemu, version="", error="not found")
    reasons.append(refuse.no_device(None, qemu, "virtio-serial-pci" if not qemu.error else "", "the guest channel"))
    if machine.name in facts.machines:
        reasons.append(
            _refuse(
                "machine-runs",
                f"a machine named '{machine.name}' is up already, or was left by a crash",
                remedy=f"nvlane down {machine.name}, or choose another name",
            )
        )
    if not qemu.error and qemu.machines and machine.type not in qemu.machines:
        near = ", ".join(m for m in qemu.machines if m.startswith(machine.type[:2])) or ", ".join(qemu.machines[:8])
        reasons.append(
            _refuse("machine-type", f"this QEMU has no machine type '{machine.type}'", remedy=f"choose one of: {near}")
        )
    if machine.accelerator is Accelerator.KVM and not facts.kvm.usable:
        reasons.append(
            _refuse(
                "no-kvm",
                "KVM was asked for and does not work here",
                evidence=(facts.kvm.reason,),
                remedy='leave machine.accelerator at "auto", which takes TCG, or mend KVM',
            )
        )
    reasons += _boot_refusals(spec, facts)
    reasons.append(_socket_refusal(spec, facts))
    if machine.network is Network.BRIDGE and machine.bridge not in facts.bridges:
        known = ", ".join(facts.bridges) or "none"
        reasons.append(
            _refuse(
                "no-bridge",
                f"there is no bridge '{machine.bridge}'",
                evidence=(f"bridges: {known}",),
                remedy='make it, or use network = "user"',
            )
        )
    return tuple(reason for reason in reasons if reason is not None)


def _socket_refusal(spec: Spec, facts: Facts) -> Refusal | None:
    """The longest socket path must fit into sockaddr_un.sun_path (unix(7)): 107 bytes and an end."""
    longest = max((len(spec.lane_id(i)) for i in range(len(spec.lanes))), default=0)
    length = len(f"{facts.runtime_dir}/{spec.machine.name}/".encode()) + longest + len("/vhost.sock")
    if length <= SOCKET_PATH_MAX:
        return None
    return _refuse(
        "socket-path",
        f"the machine's sockets would have paths of {length} bytes, and Linux allows {SOCKET_PATH_MAX}",
        evidence=(f"{facts.runtime_dir}/{spec.machine.name}",),
        remedy="give the machine a shorter name, or set NVLANE_RUNTIME_DIR to a shorter directory",
    )


def _boot_refusals(spec: Spec, facts: Facts) -> list[Refusal]:
    machine = spec.machine
    reasons: list[Refusal] = []
    reasons += _missing("no-boot-image", "machine.image", machine.image, facts)
    reasons += _missing("no-kernel", "machine.kernel", machine.kernel, facts)
    reasons += _missing("no-initrd", "machine.initrd", machine.initrd, facts)
    if machine.image and facts.path(machine.image).kind in ("file", "block"):
        seen = facts.path(machine.image)
        reasons += refuse.uses(None, f"machine.image {machine.image}", seen.uses)
        if not seen.writable:
            reasons.append(
                _refuse(
                    "boot-image-access",
                    f"machine.image: {machine.image} cannot be written by user {facts.uid}",
                    remedy="check its owner and mode, or boot from an overlay: qemu-img create -b",
                )
            )
    if not machine.image and not machine.kernel and not facts.probe_initrd:
        reasons.append(
            _refuse(
                "no-probe-guest",
                "the spec names nothing to boot, and nvlane's own probe guest could not be made",
                evidence=(f"no kernel under /boot with modules in /lib/modules (running: {facts.kernel})",),
                remedy="name machine.image or machine.kernel, or install a kernel (Debian: linux-image-cloud-amd64)",
            )
        )
    return reasons


def _missing(code: str, key: str, path: str, facts: Facts) -> tuple[Refusal, ...]:
    if not path or facts.path(path).kind in ("file", "block"):
        return ()
    return (
        _refuse(
            code,
            f"{key}: {path} is not there",
            evidence=(facts.path(path).error or facts.path(path).kind,),
            remedy="check the path; a relative one is relative to the spec file",
        ),
    )


def describe(spec: Spec, facts: Facts, needs: MemoryNeeds) -> MachineDevice:
    """Everything decided about the machine, for `qemu.render`."""
    machine = spec.machine
    where = place(spec, facts)
    accelerator = "kvm" if facts.kvm.usable and machine.accelerator is not Accelerator.TCG else "tcg"
    hugepage = _hugepage(spec, facts, needs, where.node)
    shared = needs.shared or machine.memory_backing is MemoryBacking.MEMFD
    return MachineDevice(
        name=machine.name,
        uuid=str(uuid.uuid5(_NAMESPACE, f"{facts.state_dir}/{machine.name}")),
        machine_type=machine.type,
        accelerator=accelerator,
        cpu_model=_cpu_model(accelerator, facts),
        memory=machine.memory,
        cpus=machine.cpus,
        runtime=f"{facts.runtime_dir}/{machine.name}",
        needs=dataclasses.replace(needs, shared=shared),
        hugepage=hugepage,
        memory_node=where.bind,
        boot=_boot(spec, facts),
        network=str(machine.network),
        bridge=machine.bridge,
        display=str(machine.display),
        sandbox=machine.sandbox and (facts.qemu.sandbox if facts.qemu else False),
        root_ports=SPARE_PORTS,
        numa=tuple((node.memory, node.cpus) for node in machine.numa),
        extra=machine.qemu_args,
        pins=where.cpus,
    )


def _cpu_model(accelerator: str, facts: Facts) -> str:
    """The host's processor, or all that QEMU can emulate, less what it emulates badly: up to 8.1, kernels of today die
    now and then of cmpxchg16b (6 of 8 boots of Linux 6.12 came up under 7.2, and 12 of 12 without it).

    A host that is itself emulated may deliver an interrupt to its guest twice, as long as the guest has not left since
    the first time (lab/emulator.py says how). So there the guest leaves for the end of each interrupt, which handlers
    say before they take a lock, and which KVM's paravirtual EOI would spare it.
    """
    if accelerator == "kvm":
        return "host,kvm-pv-eoi=off" if facts.emulated else "host"
    version = facts.qemu.version if facts.qemu else ""
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return "max,cx16=off" if parts and parts < (8, 2) else "max"


def _hugepage(spec: Spec, facts: Facts, needs: MemoryNeeds, node: int) -> int:
    """The page size of guest memory. AUTO takes hugepages that are free already where a lane gains by them, and never
    reserves any: the pool belongs to the host."""
    machine = spec.machine
    if machine.memory_backing is MemoryBacking.HUGEPAGES:
        return machine.hugepage_size
    if machine.memory_backing is not MemoryBacking.AUTO or not (needs.shared or needs.pinned):
        return 0
    free = free_pages(facts, node, machine.hugepage_size)
    enough = free * machine.hugepage_size >= machine.memory and machine.memory % machine.hugepage_size == 0
    return machine.hugepage_size if enough else 0


def memory_pages(body: MachineDevice, node: int) -> tuple[Step, ...]:
    """What guest memory wants of the hugepage pool, as a need: compose takes off what is free."""
    if not body.hugepage:
        return ()
    return (ReserveHugepages(node=node, page_size=body.hugepage, pages=-(-body.memory // body.hugepage)),)


def _boot(spec: Spec, facts: Facts) -> BootDisk | DirectBoot:
    machine = spec.machine
    if machine.image:
        return BootDisk(path=machine.image, format=machine.image_format or facts.path(machine.image).format or "raw")
    if machine.kernel:
        return DirectBoot(kernel=machine.kernel, initrd=machine.initrd, cmdline=machine.cmdline)
    return DirectBoot(kernel=facts.probe_kernel, initrd=facts.probe_initrd, cmdline=facts.probe_cmdline)


def notes(spec: Spec, facts: Facts, body: MachineDevice) -> tuple[Note, ...]:
    lines: list[str] = []
    if body.accelerator == "tcg" and spec.machine.accelerator is not Accelerator.TCG:
        lines.append(f"QEMU emulates the processor (TCG), which is slow: {facts.kvm.reason}")
    if spec.machine.sandbox and not body.sandbox:
        lines.append("this QEMU was built without seccomp: it runs without its sandbox")
    if body.hugepage and spec.machine.memory_backing is MemoryBacking.AUTO:
        node = place(spec, facts).node
        free = format_size(body.hugepage * free_pages(facts, node, body.hugepage))
        lines.append(f"guest memory is taken from the hugepages that are free on node {node} ({free})")
    return tuple(Note(lane=None, text=line) for line in lines)


def _refuse(code: str, reason: str, *, evidence: tuple[str, ...] = (), remedy: str = "") -> Refusal:
    return Refusal(code=code, lane=None, reason=reason, evidence=evidence, remedy=remedy)
