"""Kernel modules that matter to a lane: loaded or built in, and those that modprobe would find."""

from __future__ import annotations

import re
from typing import Final

from nvlane.facts.attribute import attribute
from nvlane.model.host import HostReader

INTERESTING: Final = (
    "vfio", "vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "iommufd", "uio", "uio_pci_generic",
    "nvme", "nvme_core", "nvme_fabrics", "nvme_tcp", "nvme_rdma", "nvme_fc", "nvme_loop",
    "configfs", "nvmet", "nvmet_tcp", "nvmet_rdma", "nvmet_fc",
    "kvm", "kvm_amd", "kvm_intel", "vhost", "vhost_net", "vhost_vsock", "tun", "bridge",
    "nd_pmem", "device_dax", "dax_pmem", "virtio_pmem", "loop", "zfs",
)  # fmt: skip

#: Drivers that show nothing under /sys/module when built in, because they have no parameters: where they show instead.
_SHOWN_BY: Final = {
    "vfio_pci": "/sys/bus/pci/drivers/vfio-pci",
    "uio_pci_generic": "/sys/bus/pci/drivers/uio_pci_generic",
    "nvme": "/sys/bus/pci/drivers/nvme",
    "vfio": "/sys/class/vfio",
    "uio": "/sys/class/uio",
    "nd_pmem": "/sys/bus/nd/drivers/nd_pmem",
    "device_dax": "/sys/bus/dax/drivers/device_dax",
}


def read_modules(host: HostReader, release: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(loaded or built in, loadable), both of INTERESTING, with '_' in their names as /proc/modules writes them."""
    directory = _directory(host, release)
    loaded = {line.split(" ", 1)[0] for line in attribute(host, "/proc/modules").splitlines()}
    built_in = _file_names(attribute(host, f"{directory}/modules.builtin"))
    present = tuple(n for n in INTERESTING if n in loaded or n in built_in or _shown(host, n))
    on_disk = _file_names(attribute(host, f"{directory}/modules.dep"))
    return present, tuple(n for n in INTERESTING if n in on_disk and n not in present)


def _directory(host: HostReader, release: str) -> str:
    merged = f"/usr/lib/modules/{release}"
    return merged if host.exists(merged) else f"/lib/modules/{release}"


def _file_names(text: str) -> set[str]:
    """'kernel/drivers/vfio/pci/vfio-pci.ko.xz: …' lines to {'vfio_pci'}: the module that each line is about."""
    found = re.findall(r"^(?:[^\s:]*/)?([^\s:/]+)\.ko(?:\.\w+)?(?::|$)", text, re.MULTILINE)
    return {name.replace("-", "_") for name in found}


def _shown(host: HostReader, name: str) -> bool:
    return host.exists(f"/sys/module/{name}") or (name in _SHOWN_BY and host.exists(_SHOWN_BY[name]))
