"""DAX character devices: persistent memory that a process maps without a file system."""

from __future__ import annotations

from nvlane.facts.attribute import names, number
from nvlane.facts.shape import DaxDevice
from nvlane.model.host import HostReader

_DEVICES = "/sys/bus/dax/devices"


def read_dax_devices(host: HostReader) -> tuple[DaxDevice, ...]:
    """Every /dev/daxX.Y. One that is given to the kernel as system memory (driver kmem) has no node and is left out."""
    return tuple(
        DaxDevice(
            path=f"/dev/{name}",
            size=number(host, f"{_DEVICES}/{name}/size"),
            alignment=number(host, f"{_DEVICES}/{name}/align", 2 << 20),
            numa_node=number(host, f"{_DEVICES}/{name}/numa_node", -1),
        )
        for name in names(host, _DEVICES)
        if host.exists(f"/dev/{name}")
    )
