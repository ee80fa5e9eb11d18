"""PCI functions: identity, driver, IOMMU group, NUMA node, SR-IOV, ways to reset."""

from __future__ import annotations

from nvlane.facts.attribute import attribute, link_name, names, number
from nvlane.facts.shape import PciFunction
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress

_DEVICES = "/sys/bus/pci/devices"


def read_functions(host: HostReader) -> tuple[PciFunction, ...]:
    """Every PCI function, by address."""
    found = []
    for name in names(host, _DEVICES):
        try:
            address = PciAddress.parse(name)
        except ValueError:
            continue  # Intel VMD numbers its domains past 16 bits, and some platforms have names of other forms
        if (function := read_function(host, address)) is not None:
            found.append(function)
    return tuple(sorted(found, key=lambda function: function.address))


def read_function(host: HostReader, address: PciAddress) -> PciFunction | None:
    """One function as sysfs shows it now, or None when it is not there (any more)."""
    base = address.sysfs
    pci_class = attribute(host, f"{base}/class")
    if not pci_class:
        return None
    group = link_name(host, f"{base}/iommu_group")
    parent = link_name(host, f"{base}/physfn")
    override = attribute(host, f"{base}/driver_override")
    return PciFunction(
        address=address,
        vendor=number(host, f"{base}/vendor"),
        device=number(host, f"{base}/device"),
        pci_class=int(pci_class, 16),
        driver=link_name(host, f"{base}/driver"),
        # The kernel prints a NULL string as '(null)' (drivers/pci/pci-sysfs.c, driver_override_show).
        driver_override="" if override == "(null)" else override,
        iommu_group=int(group) if group.isdigit() else None,
        numa_node=number(host, f"{base}/numa_node", -1),
        physical_function=PciAddress.parse(parent) if parent else None,
        sriov_total=number(host, f"{base}/sriov_totalvfs"),
        sriov_enabled=number(host, f"{base}/sriov_numvfs"),
        reset_methods=tuple(attribute(host, f"{base}/reset_method").split()),
        network_interfaces=tuple(names(host, f"{base}/net")),
    )
