"""DAX character devices: persistent memory that a process maps without a file system."""

from __future__ import annotations

from nvlane.facts.attribute import link_name, names, number
from nvlane.facts.shape import DaxDevice
from nvlane.model.host import HostReader

_DEVICES = "/sys/bus/dax/devices"


def read_dax_devices(host: HostReader) -> tuple[DaxDevice, ...]:
    """Every /dev/daxX.Y, whatever its driver: one that is given to the kernel as system memory (kmem) is told by it."""
    return tuple(
        DaxDevice(
            path=f"/dev/{name}",
            size=number(host, f"{_DEVICES}/{name}/size"),
            alignment=number(host, f"{_DEVICES}/{name}/align", 2 << 20),
            numa_node=number(host, f"{_DEVICES}/{name}/numa_node", -1),
            driver=link_name(host, f"{_DEVICES}/{name}/driver"),
        )
        for name in names(host, _DEVICES)
        if host.exists(f"/dev/{name}")
    )
