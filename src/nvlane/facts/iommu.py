"""The IOMMU, and what VFIO can do with it here."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Collection

from nvlane.facts.attribute import attribute, names
from nvlane.facts.shape import Vfio
from nvlane.model.host import HostReader


def read_iommu(host: HostReader) -> str:
    """'intel', 'amd', 'other' or '' for none that is switched on.

    /sys/class/iommu has an entry for each unit that the kernel really uses (dmar0, ivhd0, smmu3.0x…): an IOMMU that
    the firmware has and the command line leaves off does not show.
    """
    units = names(host, "/sys/class/iommu")
    if not units or not names(host, "/sys/kernel/iommu_groups"):
        return ""
    if any(unit.startswith("dmar") for unit in units):
        return "intel"
    return "amd" if any(unit.startswith("ivhd") for unit in units) else "other"


def read_vfio(host: HostReader, release: str, present: Collection[str], loadable: Collection[str]) -> Vfio:
    """What VFIO can do, with the modules that are there (`present`) and those that can be (`loadable`)."""
    available = {*present, *loadable}
    type1 = "vfio_iommu_type1" in available
    return Vfio(
        module_available="vfio_pci" in available,
        type1_available=type1,
        container=host.exists("/dev/vfio/vfio") or ("vfio" in available and type1),
        cdev=(host.exists("/dev/iommu") or "iommufd" in available) and _device_cdev(host, release),
        no_iommu_mode=attribute(host, "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode") in ("Y", "1"),
        uio_available="uio_pci_generic" in available,
    )


def _device_cdev(host: HostReader, release: str) -> bool:
    """Whether the kernel has CONFIG_VFIO_DEVICE_CDEV: seen at a bound device, else read in its configuration."""
    for address in names(host, "/sys/bus/pci/drivers/vfio-pci"):
        for name in names(host, f"/sys/bus/pci/devices/{address}/vfio-dev"):
            if host.exists(f"/sys/bus/pci/devices/{address}/vfio-dev/{name}/dev"):
                return True
    return "CONFIG_VFIO_DEVICE_CDEV=y" in _configuration(host, release)


def _configuration(host: HostReader, release: str) -> str:
    for path in (f"/boot/config-{release}", f"/usr/lib/modules/{release}/config", f"/lib/modules/{release}/config"):
        if text := attribute(host, path):
            return text
    try:
        return gzip.decompress(host.read_bytes("/proc/config.gz")).decode(errors="replace")
    except (OSError, EOFError, zlib.error):
        return ""  # CONFIG_IKCONFIG_PROC is off (ENOENT): then nothing tells, and the container is taken
