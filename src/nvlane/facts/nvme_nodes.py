"""The nodes that the kernel's nvme driver makes for a controller: its own, and those of its namespaces."""

from __future__ import annotations

import re

from nvlane.facts.attribute import names
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress


def controllers(host: HostReader, address: PciAddress) -> list[str]:
    """The names ('nvme0') that the driver gave to a PCI function: one, or none when another driver has it."""
    return [name for name in names(host, f"{address.sysfs}/nvme") if re.fullmatch(r"nvme\d+", name)]


def namespace_names(host: HostReader, controller: str) -> list[str]:
    """The block nodes of a controller's namespaces ('nvme0n1').

    With native multipath the controller shows a hidden path, 'nvme<subsystem>c<controller>n<head>', and the node is the
    head, 'nvme<subsystem>n<head>' (drivers/nvme/host/core.c, nvme_alloc_ns): the number is then the subsystem's.
    """
    found = set()
    for name in names(host, f"/sys/class/nvme/{controller}"):
        if match := re.fullmatch(r"nvme(\d+)(?:c\d+)?n(\d+)", name):
            found.add((int(match[1]), int(match[2])))
    return [f"nvme{first}n{second}" for first, second in sorted(found)]


def generic_name(namespace: str) -> str:
    """'nvme0n1' to 'ng0n1', the character node of the same namespace (Linux 5.13)."""
    return "ng" + namespace.removeprefix("nvme")
