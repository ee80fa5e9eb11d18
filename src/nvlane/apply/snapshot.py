"""What of a host nvlane may touch, as one value, so that before and after can be compared."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

from nvlane.apply.operations.function import observe_function
from nvlane.apply.operations.module import loaded_modules
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress

#: Modules that a lane may load or pull in; others come and go with the host's own business.
_MODULES: Final = re.compile(r"(vfio|uio|irqbypass|iommufd|vhost|nvmet|nvme_|nd_|dax|device_dax|kmem).*")
#: A TLS key of NVMe in /proc/keys, in whichever keyring.
_TLS_KEY: Final = re.compile(r" psk +(NVMe.*): \d+$", re.MULTILINE)
#: Programs that nvlane starts.
_PROGRAMS: Final = re.compile(r"(qemu-system-|qemu-storage-daemon|nvlane-target|spdk_tgt|vhost$).*")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSnapshot:
    """Names to states, both for people. `drivers`: PCI function -> driver and override; `drives`: serial -> how many
    namespaces the kernel shows; `hugepages`: pool -> count; `files`: paths under nvlane's own directories."""

    drivers: Mapping[str, str]
    drives: Mapping[str, str]
    hugepages: Mapping[str, str]
    mounts: Mapping[str, str]
    modules: Mapping[str, str]
    processes: Mapping[str, str]
    keys: Mapping[str, str]
    files: Mapping[str, str]


def host_snapshot(host: HostReader, *directories: str) -> HostSnapshot:
    """The state now; `directories` are those of nvlane's state and sockets."""
    drivers, drives = {}, {}
    for name in host.listdir("/sys/bus/pci/devices"):
        found = observe_function(host, PciAddress.parse(name))
        drivers[name] = f"driver '{found.driver}', override '{found.override}'"
        if found.drive is not None:
            drives[found.drive.serial] = f"{len(found.drive.namespaces)} namespaces"
    return HostSnapshot(
        drivers=drivers,
        drives=drives,
        hugepages=dict(_hugepages(host)),
        mounts=dict(_mounts(host)),
        modules={name: "loaded" for name in loaded_modules(host) if _MODULES.fullmatch(name)},
        processes=dict(_processes(host)),
        keys=dict.fromkeys(_TLS_KEY.findall(host.read_text("/proc/keys")), "there"),
        files={path: "there" for directory in directories for path in _files(host, directory)},
    )


def differences(before: HostSnapshot, after: HostSnapshot) -> tuple[str, ...]:
    """A line for each thing that is not as it was; () when the host is the same."""
    lines = []
    for field in fields(HostSnapshot):
        old, new = getattr(before, field.name), getattr(after, field.name)
        for key in sorted(old.keys() | new.keys()):
            was, now = old.get(key, "not there"), new.get(key, "not there")
            if was != now:
                lines.append(f"{field.name}: {key}: {was} before, {now} after")
    return tuple(lines)


def _hugepages(host: HostReader) -> Iterator[tuple[str, str]]:
    nodes = "/sys/devices/system/node"
    roots = [f"{nodes}/{name}/hugepages" for name in _names(host, nodes) if re.fullmatch(r"node\d+", name)]
    for root in roots or ["/sys/kernel/mm/hugepages"]:
        for pool in _names(host, root):
            base = f"{root}/{pool}"
            total, surplus = (host.read_text(f"{base}/{name}_hugepages").strip() for name in ("nr", "surplus"))
            yield base, f"{total} pages, {surplus} of them surplus"


def _mounts(host: HostReader) -> Iterator[tuple[str, str]]:
    for line in host.read_text("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fstype, _source, options = right.split()[:3]
        if fstype == "hugetlbfs":
            yield left.split()[4], f"hugetlbfs ({options})"


def _processes(host: HostReader) -> Iterator[tuple[str, str]]:
    for name in _names(host, "/proc"):
        if not name.isdecimal():
            continue
        try:
            argv = host.read_bytes(f"/proc/{name}/cmdline").split(b"\0")
        except OSError:
            continue  # it ended while we looked
        program = argv[0].decode(errors="replace").rpartition("/")[2]
        if _PROGRAMS.fullmatch(program):
            yield f"{program} (process {name})", "running"


def _files(host: HostReader, directory: str) -> Iterator[str]:
    if not host.exists(directory):
        return
    yield directory
    for name in host.listdir(directory):
        path = f"{directory}/{name}"
        if host.stat(path).kind == "directory":
            yield from _files(host, path)
        else:
            yield path


def _names(host: HostReader, directory: str) -> list[str]:
    try:
        return host.listdir(directory)
    except FileNotFoundError:
        return []
