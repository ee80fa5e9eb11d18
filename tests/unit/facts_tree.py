"""A realistic sysfs and procfs with one NVMe drive, to which each test adds the use that it is about."""

from __future__ import annotations

from typing import Any

from fakehost import Content, FakeHost, Link, Node

ADDRESS = "0000:04:00.0"
PCI = f"/sys/devices/pci0000:00/0000:00:03.0/{ADDRESS}"
CTRL = f"{PCI}/nvme/nvme0"

_DISK = f"{CTRL}/nvme0n1"


def block(name: str, number: str, path: str, *, size: int = 2097152, disk: str = "") -> dict[str, Content]:
    """One block device at a sysfs path, with its class link and its node."""
    major, minor = (int(part) for part in number.split(":"))
    files: dict[str, Content] = {
        f"/sys/class/block/{name}": Link(path),
        f"{path}/dev": f"{number}\n",
        f"{path}/size": f"{size}\n",
        f"{path}/holders": None,
        f"/dev/{name}": Node("block", (major, minor)),
    }
    if disk:
        files[f"{path}/partition"] = "1\n"
    return files


def dm(index: int, uuid: str, name: str) -> dict[str, Content]:
    path = f"/sys/devices/virtual/block/dm-{index}"
    return {
        **block(f"dm-{index}", f"253:{index}", path),
        f"{path}/dm/uuid": f"{uuid}\n",
        f"{path}/dm/name": f"{name}\n",
        f"/dev/mapper/{name}": Link(f"../dm-{index}"),
    }


def holder(below: str, above: str) -> dict[str, Content]:
    """The links that bd_link_disk_holder makes; `below` is 'nvme0n1' or a partition of it."""
    path = _DISK if below == "nvme0n1" else f"{_DISK}/{below}"
    return {f"{path}/holders/{above}": Link(f"/sys/class/block/{above}")}


def process(pid: int, comm: str, fds: dict[int, Link] | None = None, *, mnt: str = "mnt:[1]") -> dict[str, Content]:
    files: dict[str, Content] = {
        f"/proc/{pid}/comm": f"{comm}\n",
        f"/proc/{pid}/ns/mnt": Link(mnt),
        f"/proc/{pid}/fd": None,
    }
    files.update({f"/proc/{pid}/fd/{number}": link for number, link in (fds or {}).items()})
    return files


def drive_files() -> dict[str, Content]:
    """A host whose root is on virtio, with an unused drive of one namespace and two partitions."""
    return {
        **block("vda", "254:0", "/sys/devices/pci0000:00/0000:00:01.0/virtio0/block/vda"),
        **block("nvme0n1", "259:0", _DISK),
        **block("nvme0n1p1", "259:1", f"{_DISK}/nvme0n1p1", size=1048576, disk="nvme0n1"),
        **block("nvme0n1p2", "259:2", f"{_DISK}/nvme0n1p2", size=1040384, disk="nvme0n1"),
        f"{_DISK}/nsid": "1\n",
        f"{_DISK}/wwid": "eui.0025385b11b2a1ff\n",
        f"{_DISK}/queue/logical_block_size": "512\n",
        f"/sys/bus/pci/devices/{ADDRESS}": Link(f"../../../devices/pci0000:00/0000:00:03.0/{ADDRESS}"),
        f"{PCI}/class": "0x010802\n",
        f"{PCI}/vendor": "0x144d\n",
        f"{PCI}/device": "0xa808\n",
        f"{PCI}/driver": Link("../../../../bus/pci/drivers/nvme"),
        f"{PCI}/driver_override": "(null)\n",
        f"{PCI}/iommu_group": Link("../../../../kernel/iommu_groups/12"),
        f"{PCI}/numa_node": "-1\n",
        f"{PCI}/reset_method": "flr bus\n",
        "/sys/bus/pci/drivers/nvme": None,
        "/sys/kernel/iommu_groups/12/devices": None,
        "/sys/class/nvme/nvme0": Link(CTRL),
        f"{CTRL}/serial": "S4EVNX0M512345      \n",
        f"{CTRL}/model": "Samsung SSD 970 EVO Plus 1TB            \n",
        f"{CTRL}/dev": "240:0\n",
        "/dev/nvme0": Node("char", (240, 0)),
        "/sys/class/nvme-generic/ng0n1": Link(f"{CTRL}/ng0n1"),
        f"{CTRL}/ng0n1/dev": "241:0\n",
        "/dev/ng0n1": Node("char", (241, 0)),
        "/dev/null": Node("char", (1, 3)),
        "/proc/self/mountinfo": mountinfo("24 1 254:0 / / rw - ext4 /dev/vda rw"),
        "/proc/1/mountinfo": mountinfo("24 1 254:0 / / rw - ext4 /dev/vda rw"),
        "/proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n",
        **process(1, "systemd", {0: Link("/dev/null"), 3: Link("socket:[99]")}),
    }


def mountinfo(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def host(*more: dict[str, Content], **options: Any) -> FakeHost:
    files = drive_files()
    for part in more:
        files.update(part)
    return FakeHost(files, **options)
