"""A PCI function as sysfs shows it, and the way from one driver to another: driver_override and drivers_probe.

Documentation/ABI/testing/sysfs-bus-pci of the kernel: a driver_override limits the function to the driver of that
name, an empty line clears it; writing an address to drivers_probe lets the bus look for a driver. Never new_id: it
would give the driver every function with the same ids.
"""

from __future__ import annotations

import errno
import re
from typing import Final

from nvlane.apply.operations.found import FoundFunction
from nvlane.facts.shape import Drive, Namespace
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.model.pci import PciAddress

_BUS: Final = "/sys/bus/pci"
#: What sysfs shows for no override; very old kernels printed a NULL pointer with %s.
_NO_OVERRIDE: Final = ("", "(null)")
#: Seconds for which a busy attribute is tried again.
_BUSY_DEADLINE: Final = 10.0
#: Seconds that a driver gets to take a function. The write to drivers_probe has probed when it returns (device_attach()
#: in drivers/base/dd.c); this is for another prober, such as udev, who was quicker and is still at it.
_TAKE_DEADLINE: Final = 1.0
_NAMESPACE: Final = re.compile(r"(nvme\d+)(?:c\d+)?(n\d+)")


def observe_function(host: HostReader, address: PciAddress) -> FoundFunction:
    """The state of one function now."""
    base = address.sysfs
    if not host.exists(base):
        return FoundFunction(present=False)
    override = host.read_text(f"{base}/driver_override").strip()
    group = _link_name(host, f"{base}/iommu_group")
    return FoundFunction(
        present=True,
        driver=_link_name(host, f"{base}/driver"),
        override="" if override in _NO_OVERRIDE else override,
        identity=f"{_number(host, f'{base}/vendor')}:{_number(host, f'{base}/device')}",
        group=int(group) if group else None,
        drive=_observe_drive(host, address),
    )


def driver_of(host: HostReader, address: PciAddress) -> str:
    """The name of the driver that has the function now, '' for none."""
    return _link_name(host, f"{address.sysfs}/driver")


def serials_of_drives(host: HostReader) -> dict[str, str]:
    """Serial of every controller that the nvme driver has -> its name ('nvme0'). A controller that goes away while we
    read has no serial any more."""
    found: dict[str, str] = {}
    if not host.exists("/sys/class/nvme"):
        return found
    for name in host.listdir("/sys/class/nvme"):
        try:
            found[host.read_text(f"/sys/class/nvme/{name}/serial").strip()] = name
        except OSError:
            continue
    return found


def hand_over(host: Host, address: PciAddress, *, driver: str, override: str) -> str:
    """Take a function from whatever driver it has and give it to `driver` ('' for none), then leave `override`.

    Returns '' or what the kernel said when it would not. While the bus looks for a driver the override names the wanted
    one, for the override that is to stay may name another.
    """
    base = address.sysfs
    words: list[str] = []
    _write(host, f"{base}/driver_override", driver or override, words)
    if driver_of(host, address):
        _write(host, f"{base}/driver/unbind", str(address), words)
        host.wait_until(lambda: not driver_of(host, address), deadline=_TAKE_DEADLINE)
    if driver:
        if not driver_of(host, address):
            _write(host, f"{_BUS}/drivers_probe", str(address), words)
        host.wait_until(lambda: driver_of(host, address) == driver, deadline=_TAKE_DEADLINE)
    if override != (driver or override):
        _write(host, f"{base}/driver_override", override, words)
    return "; ".join(words)


def last_words(host: HostReader, address: PciAddress) -> str:
    """What the kernel last said of this function, for an error message."""
    try:
        lines = host.query(["dmesg", "--notime"]).stdout.splitlines()
    except HostError:
        return ""
    return "\n".join(f"  | {line}" for line in [line for line in lines if str(address) in line][-4:])


def _write(host: Host, path: str, text: str, words: list[str]) -> None:
    """Write an attribute. EBUSY is tried again until the deadline: another nvlane, or udev, is at the same function.

    What the kernel refuses is collected, not raised: the driver link, looked at afterwards, is what counts.
    """
    refused: list[OSError] = []

    def written() -> bool:
        refused.clear()
        try:
            host.write_text(path, text or "\n")
        except OSError as error:
            refused.append(error)
            return error.errno != errno.EBUSY
        return True

    host.wait_until(written, deadline=_BUSY_DEADLINE)
    if refused:
        words.append(f"{path}: {refused[0].strerror}")


def _observe_drive(host: HostReader, address: PciAddress) -> Drive | None:
    base = f"{address.sysfs}/nvme"
    if not host.exists(base):
        return None
    controllers = host.listdir(base)
    if not controllers:
        return None
    controller = controllers[0]
    names = {}
    for name in host.listdir(f"{base}/{controller}"):
        match = _NAMESPACE.fullmatch(name)
        if match:
            # With native multipath the path device is hidden (nvme0c1n1) and the node is the head's (nvme0n1).
            names[match[1] + match[2]] = name
    return Drive(
        address=address,
        serial=_text(host, f"{base}/{controller}/serial"),
        model=_text(host, f"{base}/{controller}/model"),
        controller=controller,
        namespaces=tuple(_namespace(host, node) for node in sorted(names)),
    )


def _namespace(host: HostReader, node: str) -> Namespace:
    block = f"/sys/block/{node}"
    # /sys/block/*/size is in units of 512 bytes whatever the block size (Documentation/ABI/stable/sysfs-block).
    return Namespace(
        name=node,
        nsid=int(_text(host, f"{block}/nsid") or node.rpartition("n")[2]),
        size=int(_text(host, f"{block}/size") or 0) * 512,
        block_size=int(_text(host, f"{block}/queue/logical_block_size") or 512),
        wwid=_text(host, f"{block}/wwid"),
    )


def _text(host: HostReader, path: str) -> str:
    """An attribute, '' when it is not there (any more): a drive may be pulled while we read."""
    try:
        return host.read_text(path).strip()
    except OSError:
        return ""


def _link_name(host: HostReader, path: str) -> str:
    try:
        return host.readlink(path).rpartition("/")[2]
    except OSError:
        return ""


def _number(host: HostReader, path: str) -> str:
    return _text(host, path).removeprefix("0x")
