"""What a QEMU binary can do, in its own words: one run, no machine, a script of QMP commands."""

from __future__ import annotations

from typing import Final

from nvlane.facts.qmp_script import Question, Schema, ask, version_text
from nvlane.facts.shape import Qemu
from nvlane.model.errors import HostError, WireError
from nvlane.model.host import HostReader

#: Devices that a lane may want: their properties are asked for. A type that the binary lacks is left out of the facts.
DEVICES: Final = (
    "nvme", "nvme-ns", "nvme-subsys", "vfio-pci", "virtio-blk-pci", "virtio-scsi-pci", "vhost-user-blk-pci",
    "vhost-user-scsi-pci", "nvdimm", "virtio-pmem-pci", "scsi-hd", "ide-hd", "usb-storage", "qemu-xhci", "ich9-ahci",
    "pcie-root-port", "pci-bridge", "pcie-pci-bridge", "pxb-pcie", "virtio-serial-pci", "virtserialport",
    "virtio-rng-pci", "virtio-net-pci", "virtio-balloon-pci", "isa-serial", "isa-debug-exit", "intel-iommu",
    "virtio-iommu-pci", "VGA", "virtio-vga",
)  # fmt: skip

# No machine, so no vCPU: TCG first, for it needs no device node; a binary without it falls to KVM.
_ARGUMENTS: Final = (
    "-S", "-no-user-config", "-nodefaults", "-machine", "none,accel=tcg:kvm", "-display", "none", "-qmp", "stdio",
)  # fmt: skip

#: No file can be made here, so a backend of it fails, by this name. In a build without libpmem it fails before, for
#: want of that (backends/hostmem-file.c: older ones of its support, newer ones of the property).
_NO_FILE: Final = "/proc/nowhere/pmem"

_QUESTIONS: Final[tuple[Question, ...]] = (
    ("query-version", {}),
    ("query-machines", {}),
    ("qom-list-types", {"implements": "device", "abstract": False}),
    ("qom-list-types", {"implements": "user-creatable", "abstract": False}),
    ("qom-list-types", {"implements": "accel", "abstract": False}),
    ("query-qmp-schema", {}),
    ("query-command-line-options", {"option": "sandbox"}),
    ("object-add", {"qom-type": "memory-backend-file", "id": "p", "pmem": True, "size": 4096, "mem-path": _NO_FILE}),
)


def read_qemu(host: HostReader, path: str) -> Qemu:
    """Ask the binary at an absolute path. A broken one gives a value with `error`, never an exception."""
    asked = (*_QUESTIONS, *(("device-list-properties", {"typename": name}) for name in DEVICES))
    try:
        errors: dict[int, str] = {}
        replies = ask(host, (path, *_ARGUMENTS), asked, errors=errors)
        return _made_of(path, replies, pmem=_NO_FILE in errors.get(len(_QUESTIONS) - 1, ""))
    except (HostError, WireError) as error:
        return Qemu(path=path, version="", error=str(error))
    except (KeyError, TypeError, ValueError) as error:
        return Qemu(path=path, version="", error=f"{path} gave an answer that is not QMP as documented: {error!r}")


def _made_of(path: str, replies: list[object], *, pmem: bool) -> Qemu:
    version, machines, devices, objects, accelerators, schema, sandbox, _ = _lists(replies[: len(_QUESTIONS)])
    names = {entry["name"] for entry in devices}
    properties = {
        name: tuple(sorted(p["name"] for p in reply))
        for name, reply in zip(DEVICES, replies[len(_QUESTIONS) :], strict=True)
        if name in names and isinstance(reply, list)
    }
    entries = Schema(schema)
    return Qemu(
        path=path,
        version=version_text(version),
        machines=tuple(sorted({n for m in machines for n in (m["name"], m.get("alias", "")) if n and n != "none"})),
        accelerators=tuple(sorted(a["name"][: -len("-accel")] for a in accelerators if a["name"].endswith("-accel"))),
        devices=properties,
        objects=tuple(sorted(entry["name"] for entry in objects)),
        block_drivers=tuple(sorted(entries.tag_values("blockdev-add"))),
        aio=tuple(sorted(entries.enum_with("threads", "native"))),
        reconnect_ms=entries.has_object("tn3270", "reconnect-ms"),  # ChardevSocket of qapi/char.json
        sandbox=bool(sandbox),  # the option is registered only in a build with seccomp
        pmem=pmem,
    )


def _lists(replies: list[object]) -> list:  # type: ignore[type-arg]  # JSON, checked by use: see read_qemu
    """The replies with 'not answered' as an empty list."""
    return [reply if reply is not None else [] for reply in replies]
