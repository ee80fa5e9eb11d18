"""The lab's drives, by serial: their names now, their addresses, their virtual functions."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nvlane.apply import process

_PCI = Path("/sys/bus/pci/devices")


def controller(serial: str) -> Path:
    """/sys/class/nvme/nvmeN of a drive: numbers change whenever a driver is bound again."""
    for found in Path("/sys/class/nvme").iterdir():
        if (found / "serial").read_text().strip() == serial and not (found / "device/physfn").exists():
            return found
    raise AssertionError(f"no controller has the serial {serial}")


def address(serial: str) -> str:
    return (controller(serial) / "device").resolve().name


def node(serial: str, nsid: int = 1) -> str:
    """Its block device: '/dev/nvme3n1'. Beside the namespace itself there may be the hidden path of its head."""
    device = controller(serial)
    for head in Path("/sys/block").glob("nvme*n*"):
        # A namespace stands below its controller, or, with multipath, below the subsystem of its controllers.
        parent = head.resolve().parent
        ours = parent == device.resolve() or (parent / device.name).exists()
        if ours and int((head / "nsid").read_text()) == nsid and Path("/dev", head.name).exists():
            return f"/dev/{head.name}"
    raise AssertionError(f"{serial} has no namespace {nsid}")


def driver_of(pci_address: str) -> str:
    link = _PCI / pci_address / "driver"
    return link.resolve().name if link.exists() else ""


def wait(what: str, done: Callable[[], bool], seconds: float = 30.0) -> None:
    """The kernel has no event for these: poll with a deadline."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@contextlib.contextmanager
def unmounted(place: str) -> Iterator[None]:
    """Take a mount of the lab away for a while."""
    source = next(line.split()[0] for line in Path("/proc/mounts").read_text().splitlines() if line.split()[1] == place)
    serial = (Path("/sys/block", Path(source).name, "device/serial")).read_text().strip()
    process.run(["umount", place])
    try:
        yield
    finally:
        wait(f"{serial} is back", lambda: _has_node(serial))
        process.run(["mount", "-t", "ext4", "-o", "noatime", node(serial), place])


def _has_node(serial: str) -> bool:
    try:
        node(serial)
    except (AssertionError, OSError):
        return False
    return True


@contextlib.contextmanager
def virtual_functions(serial: str, count: int) -> Iterator[list[str]]:
    """Virtual functions of an SR-IOV controller, with a queue pair and an interrupt each, online (nvme-cli,
    virt-mgmt: NVMe Base Specification 2.0, 5.22, Virtualization Management)."""
    physical = _PCI / address(serial)
    device = f"/dev/{controller(serial).name}"
    # Without this the kernel's driver would take each as soon as it is there, before it has queues.
    (physical / "sriov_drivers_autoprobe").write_text("0")
    (physical / "sriov_numvfs").write_text(str(count))
    try:
        for number in range(1, count + 1):
            for resource in ("0", "1"):
                process.run(
                    ["nvme", "virt-mgmt", device, f"--cntlid={number}", f"--rt={resource}", "--act=8", "--nr=2"]
                )
            process.run(["nvme", "virt-mgmt", device, f"--cntlid={number}", "--act=9"])
        yield [(physical / f"virtfn{number}").resolve().name for number in range(count)]
    finally:
        (physical / "sriov_numvfs").write_text("0")
        (physical / "sriov_drivers_autoprobe").write_text("1")
