"""The real host with everything that a use case needs of it, and the picture of it that a spec asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply.initramfs import build_probe_guest
from nvlane.apply.launchers import default_launchers
from nvlane.apply.linux import LinuxHost
from nvlane.apply.operations.plug import Plugger
from nvlane.apply.operations.table import Operations, operations
from nvlane.apply.probe_cache import ProbeCache
from nvlane.apply.store import Store
from nvlane.cli.service.kvm import kvm_prober
from nvlane.facts.fingerprint import read_fingerprints
from nvlane.facts.host import read_facts
from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Facts
from nvlane.lanes.subjects import content_paths, drives, paths
from nvlane.model.errors import HostError
from nvlane.spec.document import Spec
from nvlane.spec.lane import Nvdimm
from nvlane.targets.program import packaged_target


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This host, its runs, and the table of operations; `fio`: the kit that the probe guest gets, where it needs
    one."""

    host: LinuxHost
    store: Store
    operations: Operations
    plugger: Plugger
    fio: Path | None = None


def this_world() -> World:
    host = LinuxHost()
    launchers = default_launchers()
    return World(host=host, store=Store.of(host), operations=operations(launchers), plugger=launchers.plugger)


def read_host(
    world: World,
    *,
    qemu: str = "qemu-system-x86_64",
    probe_kvm: bool = True,
    specs: Sequence[Spec] = (),
    probe_guest: bool = False,
) -> Facts:
    """Facts of the host, for no spec in particular or for some; `probe_guest`: also what nvlane's own guest boots."""
    named = tuple(dict.fromkeys(path for spec in specs for path in paths(spec)))
    facts = _facts(world, named, qemu=qemu, probe_kvm=probe_kvm)
    if probe_guest:
        facts = _with_probe_guest(world, facts, pmem_tools=True)
    return _with_content(world, facts, specs)


def read_for(world: World, spec: Spec, *, boots: bool = True) -> Facts:
    """Facts for one spec: its paths, the content of its drives, and the probe guest if it boots that (`boots` False:
    the machine is libvirt's, and boots what that says)."""
    facts = _facts(world, paths(spec), qemu=spec.machine.qemu, probe_kvm=spec.machine.accelerator != "tcg")
    if boots and not spec.machine.image and not spec.machine.kernel:
        # The tools for persistent memory are two thirds of the image, and every byte is unpacked at each boot.
        facts = _with_probe_guest(world, facts, pmem_tools=any(isinstance(lane, Nvdimm) for lane in spec.lanes))
    return _with_content(world, facts, (spec,))


def _with_content(world: World, facts: Facts, specs: Sequence[Spec]) -> Facts:
    wanted = [of for spec in specs for of in _content_of(spec, facts)]
    prints, unread = read_fingerprints(world.host, wanted, facts.drives)
    return dataclasses.replace(facts, fingerprints=prints, unknown=(*facts.unknown, *unread))


def read_paths_of(world: World, named: Sequence[str]) -> Facts:
    """Facts for some paths and the drives: enough to find on the host what a guest wrote."""
    return _facts(world, named, qemu="qemu-system-x86_64", probe_kvm=False)


def _facts(world: World, spec_paths: Sequence[str], *, qemu: str, probe_kvm: bool) -> Facts:
    store, cache = world.store, ProbeCache()
    return read_facts(
        world.host,
        state_dir=str(store.state),
        runtime_dir=str(store.runtime),
        spec_paths=spec_paths,
        qemu=qemu,
        target=packaged_target(),
        remembered=store.remembered_drives(),
        kvm_probe=kvm_prober(world.host, cache) if probe_kvm else None,
        cache=cache,
        machines=store.names(),
    )


def _with_probe_guest(world: World, facts: Facts, *, pmem_tools: bool) -> Facts:
    """The probe guest of the running kernel; of another installed one where that is not in /boot."""
    others = world.host.listdir("/lib/modules") if world.host.exists("/lib/modules") else []
    releases = dict.fromkeys((facts.kernel, *reversed(others)))
    release = next((name for name in releases if world.host.exists(f"/boot/vmlinuz-{name}")), facts.kernel)
    try:
        guest = build_probe_guest(release, pmem_tools=pmem_tools, fio=world.fio)
    except HostError as error:
        # The plan refuses for want of something to boot; why there is nothing belongs to what is not known.
        return dataclasses.replace(facts, unknown=(*facts.unknown, f"no probe guest: {error.message}"))
    return dataclasses.replace(
        facts, probe_kernel=str(guest.kernel), probe_initrd=str(guest.initrd), probe_cmdline=guest.cmdline
    )


def _content_of(spec: Spec, facts: Facts) -> tuple[str, ...]:
    """What to fingerprint: files that lanes serve, and each namespace of each drive that they take."""
    named = list(content_paths(spec))
    for text in drives(spec):
        found = find_drive(facts, text)
        if isinstance(found, Located):
            named += [f"{found.drive.address}:{namespace.nsid}" for namespace in found.drive.namespaces]
    return tuple(named)
