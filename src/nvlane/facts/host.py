"""The whole picture of a host, taken by the readers one after the other."""

from __future__ import annotations

import dataclasses
import json
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from nvlane.facts.attribute import attribute, names
from nvlane.facts.dax import read_dax_devices
from nvlane.facts.drives import read_drives
from nvlane.facts.fabrics import read_fabrics
from nvlane.facts.fingerprint import read_fingerprints
from nvlane.facts.hugepages import hugetlbfs_mounts, read_default_size, read_pools, read_reserved
from nvlane.facts.iommu import read_iommu, read_vfio
from nvlane.facts.limits import read_limits
from nvlane.facts.modules import read_modules
from nvlane.facts.numa import meminfo, read_nodes
from nvlane.facts.paths import read_paths
from nvlane.facts.pci import read_functions
from nvlane.facts.processor import is_emulated
from nvlane.facts.qemu import read_qemu
from nvlane.facts.shape import Drive, Facts, Kvm, Qemu, StorageDaemon, Target
from nvlane.facts.storage_daemon import read_storage_daemon
from nvlane.facts.target import read_target
from nvlane.facts.usage import take_survey
from nvlane.model.codec import decode, encode
from nvlane.model.cpus import parse_cpus
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress

_Binary = TypeVar("_Binary", Qemu, StorageDaemon, Target)

#: e_machine of ELF (include/uapi/linux/elf-em.h) to what uname says, for kernels before 6.1 without kernel.arch.
_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64le", 22: "s390x"}


class Cache(Protocol):
    """Where answers that cost a process are kept. Facts write nothing themselves: the caller brings this."""

    def get(self, key: str) -> str | None: ...
    def put(self, key: str, text: str) -> None: ...


def read_facts(
    host: HostReader,
    *,
    state_dir: str,
    runtime_dir: str,
    spec_paths: Sequence[str] = (),
    fingerprint_of: Sequence[str] = (),
    qemu: str = "qemu-system-x86_64",
    storage_daemon: str = "qemu-storage-daemon",
    target: str = "nvlane-target",
    remembered: Mapping[PciAddress, Drive] | None = None,
    kvm_probe: Callable[[str], Kvm] | None = None,
    cache: Cache | None = None,
    machines: Sequence[str] = (),
    probe_guest: tuple[str, str, str] = ("", "", ""),
) -> Facts:
    """Read everything. `spec_paths` are the files and devices of the spec, `fingerprint_of` what to read content of
    ('ADDRESS:NSID' or a path), `remembered` the drives that open journals know, `kvm_probe` a function from the QEMU
    binary to whether KVM works, `machines` those that are up, `probe_guest` kernel, initrd and command line of
    nvlane's own guest.

    A subject that cannot be read is left at its 'not known' value, and `unknown` says so with the remedy.
    """
    functions = read_functions(host)
    survey = take_survey(host)
    drives = read_drives(host, functions, survey, remembered or {})
    prints, unread = read_fingerprints(host, fingerprint_of, drives)
    binary = read_binary(host, qemu, Qemu, read_qemu, cache)
    limited = () if host.effective_uid() == 0 else ("what is on a drive is seen by root only; run as root",)
    return dataclasses.replace(
        _machine(host, state_dir, runtime_dir),
        functions=functions,
        drives=drives,
        hugetlbfs=hugetlbfs_mounts(survey.mounts.own),
        kvm=_kvm(host, kvm_probe, binary),
        qemu=binary,
        storage_daemon=read_binary(host, storage_daemon, StorageDaemon, read_storage_daemon, cache),
        target=read_binary(host, target, Target, read_target, cache),
        paths=read_paths(host, spec_paths, survey),
        fingerprints=prints,
        machines=tuple(machines),
        probe_kernel=probe_guest[0],
        probe_initrd=probe_guest[1],
        probe_cmdline=probe_guest[2],
        unknown=(*survey.unknown, *limited, *unread),
        taken=time.time(),
    )


def _machine(host: HostReader, state_dir: str, runtime_dir: str) -> Facts:
    """The kernel, processors, memory and buses: what is the same for every spec."""
    release = attribute(host, "/proc/sys/kernel/osrelease")
    present, loadable = read_modules(host, release)
    return Facts(
        hostname=attribute(host, "/proc/sys/kernel/hostname"),
        kernel=release,
        architecture=_architecture(host),
        boot_id=attribute(host, "/proc/sys/kernel/random/boot_id"),
        uid=host.effective_uid(),
        cpus=parse_cpus(attribute(host, "/sys/devices/system/cpu/online", "0")),
        memory_total=meminfo(attribute(host, "/proc/meminfo")).get("MemTotal", 0),
        state_dir=state_dir,
        runtime_dir=runtime_dir,
        emulated=is_emulated(host),
        iommu=read_iommu(host),
        nodes=read_nodes(host),
        hugepages=read_pools(host),
        default_hugepage=read_default_size(host),
        hugepages_reserved=read_reserved(host),
        modules=present,
        loadable=loadable,
        limits=read_limits(host),
        vfio=read_vfio(host, release, present, loadable),
        dax_devices=read_dax_devices(host),
        fabrics=read_fabrics(host),
        bridges=tuple(n for n in names(host, "/sys/class/net") if host.exists(f"/sys/class/net/{n}/bridge")),
    )


def resolve_program(host: HostReader, name: str) -> str:
    """The absolute path of a program, by PATH and the places where administration programs stand; '' when there is
    none."""
    if "/" in name:
        return name if host.exists(name) else ""
    for directory in (*(host.environment("PATH") or "").split(":"), "/usr/sbin", "/usr/libexec", "/usr/bin"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and host.exists(path) and host.stat(path).mode & 0o111:
            return path
    return ""


def read_binary(
    host: HostReader, name: str, kind: type[_Binary], ask: Callable[[HostReader, str], _Binary], cache: Cache | None
) -> _Binary:
    """What a program says of itself, from the cache while path, size and time of change are the same. A failure is
    never cached: the next call asks again."""
    path = resolve_program(host, name)
    if not path:
        return kind(path=name, version="", error=f"no such program: {name}; install the package that has it")
    found = host.stat(path)
    # With the fields that are asked for: an nvlane that asks for more does not take the answer of one that did not.
    asked = zlib.crc32(",".join(field.name for field in dataclasses.fields(kind)).encode())
    key = f"{kind.__name__.lower()}-{asked:08x}-{path}-{found.inode}-{found.size}-{found.mtime_ns}"
    if cache is not None and (cached := _cached(kind, cache.get(key))) is not None:
        return cached
    answer = ask(host, path)
    if cache is not None and not answer.error:
        cache.put(key, json.dumps(encode(answer)))
    return answer


def _cached(kind: type[_Binary], text: str | None) -> _Binary | None:
    try:
        return decode(kind, json.loads(text)) if text is not None else None
    except ValueError:
        return None  # written by another version of nvlane, or torn: asked again and overwritten


def _kvm(host: HostReader, probe: Callable[[str], Kvm] | None, binary: Qemu) -> Kvm:
    if not host.exists("/dev/kvm"):
        return Kvm(usable=False, reason="no /dev/kvm: no virtualisation in processor or firmware, or no module")
    if binary.error or probe is None:
        return Kvm(usable=False, reason=f"not probed: {binary.error or 'no probe was given'}")
    if "kvm" not in binary.accelerators:
        return Kvm(usable=False, reason=f"{binary.path} has no KVM accelerator")
    return probe(binary.path)


def _architecture(host: HostReader) -> str:
    if said := attribute(host, "/proc/sys/kernel/arch"):
        return said
    machine = int.from_bytes(host.read_bytes("/proc/self/exe", offset=18, length=2), "little")
    return _ELF_MACHINES.get(machine, f"elf-machine-{machine}")
