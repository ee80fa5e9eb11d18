"""Every way to use a drive, made for real on LABSPARE: `read_uses` finds it with evidence, and nothing after clean-up.

Runs inside the lab, as root:  nvlane lab run python3 -m pytest /nvlane/tests/lab/inside/test_uses.py
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from nvlane.apply import process
from nvlane.apply.linux_reader import LinuxReader
from nvlane.facts.drives import read_drives
from nvlane.facts.nvme_nodes import generic_name
from nvlane.facts.pci import read_functions
from nvlane.facts.shape import Drive, Use, UseKind
from nvlane.facts.usage import read_uses, take_survey
from nvlane.model.errors import CommandFailed

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.environ.get("NVLANE_LAB") != "1", reason="makes and breaks things: in the lab only"),
]

HOST = LinuxReader()
MIB = 1 << 20
SAVED = 8 * MIB
_BLKRRPART = 0x125F  # include/uapi/linux/fs.h


def sh(*argv: str, text: str | None = None) -> str:
    return process.run(argv, input=text).stdout


def drives() -> dict[str, Drive]:
    found = read_drives(HOST, read_functions(HOST), take_survey(HOST), {})
    return {drive.serial: drive for drive in found if not _is_virtual(drive)}


def _is_virtual(drive: Drive) -> bool:
    return Path(drive.address.sysfs, "physfn").exists()


def wait(what: str, done: Callable[[], bool], seconds: float = 20.0) -> None:
    """The kernel has no event for these: poll with a deadline."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@dataclass
class Spare:
    """LABSPARE and what was done to it: `later` is undone in reverse."""

    drive: Drive
    later: ExitStack

    @property
    def name(self) -> str:
        return self.drive.namespaces[0].name

    @property
    def node(self) -> str:
        return f"/dev/{self.name}"

    def uses(self) -> tuple[Use, ...]:
        return read_uses(HOST, self.drive.address)

    def do(self, *argv: str, undo: tuple[str, ...] = (), text: str | None = None) -> str:
        output = sh(*argv, text=text)
        if undo:
            self.later.callback(sh, *undo)
        return output

    def write(self, path: str, text: str) -> None:
        Path(path).write_text(text)

    def undo_write(self, path: str, text: str) -> None:
        self.later.callback(self.write, path, text)

    def loop(self, megabytes: int) -> str:
        """A loop device on a file in memory: a second device for what needs two."""
        sh("modprobe", "loop")
        file = Path("/dev/shm/nvlane-test.img")
        with file.open("wb") as opened:
            opened.truncate(megabytes * MIB)
        self.later.callback(file.unlink)
        node = sh("losetup", "--find", "--show", str(file)).strip()
        self.later.callback(sh, "losetup", "--detach", node)
        return node

    def partition(self) -> str:
        """One partition of 400 MiB in an MBR (UEFI Specification 5.2.1)."""
        entry = struct.pack("<8B2I", 0, 0, 0, 0, 0x83, 0, 0, 0, 2048, 819200)
        _table(self.node, bytes(446) + entry + bytes(48) + b"\x55\xaa")
        self.later.callback(_table, self.node, bytes(512))
        return f"{self.node}p1"

    def directory(self) -> str:
        path = Path("/tmp/nvlane-test")
        path.mkdir()
        self.later.callback(path.rmdir)
        return str(path)

    def holding(self, *argv: str, ready: Callable[[], bool]) -> int:
        """A process that runs until the end of the test."""
        pid = process.spawn(argv, log=Path("/tmp/nvlane-test-holding.log"))
        self.later.callback(_end, pid)
        wait(f"{argv} is ready", ready)
        return pid


def _table(node: str, sector: bytes) -> None:
    with Path(node).open("r+b", buffering=0) as device:
        device.write(sector)
        fcntl.ioctl(device, _BLKRRPART)


def _end(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@pytest.fixture
def spare() -> Iterator[Spare]:
    """The drive, unused; what the test wrote at its ends is put back."""
    drive = drives()["LABSPARE"]
    node = f"/dev/{drive.namespaces[0].name}"
    assert drive.uses == ()
    size = drive.namespaces[0].size
    with Path(node).open("rb") as device:
        front = device.read(SAVED)
        device.seek(size - SAVED)
        back = device.read(SAVED)
    try:
        with ExitStack() as later:
            yield Spare(drive=drive, later=later)
    finally:
        again = drives()["LABSPARE"]
        with Path(f"/dev/{again.namespaces[0].name}").open("r+b") as device:
            device.write(front)
            device.seek(size - SAVED)
            device.write(back)
    assert again.uses == ()


def kinds(uses: tuple[Use, ...]) -> list[tuple[UseKind, str]]:
    return [(use.kind, use.device) for use in uses]


def only(spare: Spare, kind: UseKind, *evidence: str, device: str = "") -> None:
    """Exactly this use, with these words; and the kernel agrees unless it knows of no claim (`OPEN`, `LOOP`)."""
    found = spare.uses()
    assert kinds(found) == [(kind, device or spare.name)], found
    for words in evidence:
        assert words in found[0].evidence


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDONLY | os.O_EXCL)
    try:
        yield
    finally:
        os.close(descriptor)


def kernel_refuses(path: str) -> bool:
    with suppress(OSError), exclusive(path):
        return False
    return True


def ext4(spare: Spare, node: str = "") -> None:
    spare.do("mke2fs", "-q", "-F", "-t", "ext4", node or spare.node)


# What the lab has from the start.


def test_drives_of_the_lab() -> None:
    there = drives()
    assert [use.kind for use in there["LABROOT"].uses] == [UseKind.ROOT]
    for serial, place in (("LABMOUNT", "/srv/mounted"), ("LABSIBB", "/srv/sibling")):
        assert [use.kind for use in there[serial].uses] == [UseKind.MOUNT]
        assert place in there[serial].uses[0].evidence
    assert there["LABSIBA"].uses == ()


def test_namespaces_and_content_of_the_lab() -> None:
    there = drives()
    assert [(n.nsid, n.size, n.block_size) for n in there["LABDRIVE2"].namespaces] == [
        (1, 1024 * MIB, 4096),
        (2, 512 * MIB, 4096),
    ]
    assert [c.what for c in there["LABDRIVE1"].contents] == ["ext4, label LABDRIVE1"]
    assert [c.what for c in there["LABSIBA"].contents] == ["data without a known signature"]


# File systems.


def test_mount(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    spare.do("mount", spare.node, place, undo=("umount", place))
    only(spare, UseKind.MOUNT, f"{place} (ext4", "mountinfo")
    assert kernel_refuses(spare.node)


def test_mount_of_a_partition(spare: Spare) -> None:
    part = spare.partition()
    ext4(spare, part)
    place = spare.directory()
    spare.do("mount", part, place, undo=("umount", place))
    only(spare, UseKind.MOUNT, place, device=f"{spare.name}p1")


def test_mount_in_the_namespace_of_another_process(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    script = f"mount {spare.node} {place} && touch {place}/ready && exec sleep 600"
    pid = spare.holding(
        "unshare", "--mount", "sh", "-c", script, ready=lambda: "mounted on" in str(spare.uses())
    )
    assert place not in Path("/proc/self/mountinfo").read_text()
    found = spare.uses()
    assert kinds(found) == [(UseKind.MOUNT, spare.name)]
    assert f"/proc/{pid}/mountinfo" in found[0].evidence


def test_mount_in_a_namespace_without_a_process(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    keep = Path("/tmp/nvlane-test-ns")
    keep.mkdir()
    spare.later.callback(keep.rmdir)
    spare.do("mount", "--bind", str(keep), str(keep), undo=("umount", str(keep)))
    spare.do("mount", "--make-private", str(keep))
    (keep / "mnt").touch()
    spare.later.callback((keep / "mnt").unlink)
    spare.do("unshare", f"--mount={keep}/mnt", "mount", spare.node, place, undo=("umount", f"{keep}/mnt"))
    only(spare, UseKind.MOUNT, f"/sys/fs/ext4/{spare.name}", "no process shows it")
    assert kernel_refuses(spare.node)


def test_lazily_unmounted(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    spare.do("mount", spare.node, place)
    spare.later.callback(wait, "the file system is gone", lambda: not kernel_refuses(spare.node))
    spare.holding("sh", "-c", f"cd {place} && touch ready && exec sleep 600", ready=Path(place, "ready").exists)
    spare.do("umount", "--lazy", place)
    only(spare, UseKind.MOUNT, f"/sys/fs/ext4/{spare.name}")


def test_btrfs_of_two_devices(spare: Spare) -> None:
    other = spare.loop(200)
    spare.do("modprobe", "btrfs")
    spare.do("mkfs.btrfs", "-q", "-f", "-d", "single", other, spare.node)
    spare.do("btrfs", "device", "scan")
    place = spare.directory()
    spare.do("mount", other, place, undo=("umount", place))
    found = spare.uses()
    assert kinds(found) == [(UseKind.MOUNT, spare.name), (UseKind.BTRFS, spare.name)]
    assert place in found[0].evidence
    assert f"devices/{spare.name}" in found[1].evidence
    spare.later.callback(sh, "btrfs", "device", "scan", "--forget")


def test_swap(spare: Spare) -> None:
    spare.do("mkswap", spare.node)
    spare.do("swapon", spare.node, undo=("swapoff", spare.node))
    only(spare, UseKind.SWAP, "/proc/swaps", spare.node)


# Devices on the device.


def lvm(spare: Spare, *argv: str, undo: tuple[str, ...] = ()) -> None:
    quiet = ("--devicesfile", "", "--quiet")
    spare.do("lvm", argv[0], *quiet, *argv[1:], undo=("lvm", undo[0], *quiet, *undo[1:]) if undo else ())


def test_lvm(spare: Spare) -> None:
    lvm(spare, "pvcreate", "-ff", "-y", spare.node, undo=("pvremove", "-ff", "-y", spare.node))
    lvm(spare, "vgcreate", "nvlanetest", spare.node, undo=("vgremove", "-f", "nvlanetest"))
    assert spare.uses() == ()  # a group without an active volume is content
    assert [c.what.split(",")[0] for c in drives()["LABSPARE"].contents] == ["LVM2_member"]
    lvm(spare, "lvcreate", "-y", "-Zn", "-L", "64M", "-n", "data", "nvlanetest")
    only(spare, UseKind.LVM, "holders/dm-", "nvlanetest-data", "LVM-")
    ext4(spare, "/dev/mapper/nvlanetest-data")
    place = spare.directory()
    spare.do("mount", "/dev/mapper/nvlanetest-data", place, undo=("umount", place))
    assert kinds(spare.uses()) == [(UseKind.LVM, spare.name), (UseKind.MOUNT, spare.name)]


def test_lvm_volume_on_another_member_of_the_group(spare: Spare) -> None:
    other = spare.loop(200)
    lvm(spare, "pvcreate", "-ff", "-y", spare.node, undo=("pvremove", "-ff", "-y", spare.node))
    lvm(spare, "vgcreate", "nvlanetest", spare.node, other, undo=("vgremove", "-f", "nvlanetest"))
    lvm(spare, "lvcreate", "-y", "-Zn", "-L", "64M", "-n", "data", "nvlanetest", other)
    only(spare, UseKind.LVM, "the group nvlanetest", "nvlanetest-data is active")


def test_md(spare: Spare) -> None:
    spare.do("modprobe", "raid1")
    create = ("mdadm", "--create", "/dev/md7", "--run", "--level=1", "--raid-devices=2", "--metadata=1.2")
    spare.later.callback(sh, "mdadm", "--zero-superblock", spare.node)
    spare.do(*create, spare.node, "missing", undo=("mdadm", "--stop", "/dev/md7"))
    only(spare, UseKind.MD, "holders/md7")
    assert kernel_refuses(spare.node)


def test_crypt(spare: Spare) -> None:
    spare.do("modprobe", "dm_crypt")
    fast = ("--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", "-q")
    spare.do("cryptsetup", "luksFormat", *fast, spare.node, text="secret")
    opened = ("cryptsetup", "open", "--key-file", "-", spare.node, "nvlanetest")
    spare.do(*opened, text="secret", undo=("cryptsetup", "close", "nvlanetest"))
    only(spare, UseKind.CRYPT, "nvlanetest", "CRYPT-")


def dm_table(spare: Spare, table: str, *options: str) -> None:
    make = ("dmsetup", "create", "nvlanetest", "--noudevsync", *options, "--table", table)
    spare.do(*make, undo=("dmsetup", "remove", "--retry", "--noudevsync", "nvlanetest"))


def test_device_mapper(spare: Spare) -> None:
    dm_table(spare, f"0 2048 linear {spare.node} 0")
    only(spare, UseKind.DM, "nvlanetest")


def test_multipath(spare: Spare) -> None:
    spare.do("modprobe", "-a", "dm_multipath", "dm_round_robin")
    sectors = spare.drive.namespaces[0].size // 512
    # By bios, for the head of a native multipath namespace takes no requests.
    table = f"0 {sectors} multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 {spare.node} 1"
    dm_table(spare, table, "--uuid", "mpath-nvlanetest")
    only(spare, UseKind.MULTIPATH, "mpath-nvlanetest")


def test_bcache_backing_device(spare: Spare) -> None:
    spare.do("modprobe", "bcache")
    spare.do("wipefs", "--all", "--quiet", spare.node)
    spare.do("make-bcache", "-B", "--wipe-bcache", spare.node)
    spare.write("/sys/fs/bcache/register", spare.node)
    bcache = Path(f"/sys/class/block/{spare.name}/bcache")
    wait("bcache has it", bcache.exists)
    spare.later.callback(wait, "bcache let it go", lambda: not bcache.exists() and not kernel_refuses(spare.node))
    spare.undo_write(f"{bcache}/stop", "1")
    found = spare.uses()
    assert {use.kind for use in found} == {UseKind.BCACHE}
    assert "registered with bcache" in str(found)
    assert kernel_refuses(spare.node)


def test_bcache_cache_device(spare: Spare) -> None:
    spare.do("modprobe", "bcache")
    spare.do("wipefs", "--all", "--quiet", spare.node)
    spare.do("make-bcache", "-C", "--wipe-bcache", spare.node)
    spare.write("/sys/fs/bcache/register", spare.node)
    bcache = Path(f"/sys/class/block/{spare.name}/bcache")
    wait("bcache has it", bcache.exists)
    spare.later.callback(wait, "bcache let it go", lambda: not bcache.exists() and not kernel_refuses(spare.node))
    spare.undo_write(f"{bcache}/set/stop", "1")
    only(spare, UseKind.BCACHE, "registered with bcache")


def test_loop_and_a_file_system_on_it(spare: Spare) -> None:
    ext4(spare)
    spare.do("modprobe", "loop")
    loop = spare.do("losetup", "--find", "--show", spare.node).strip()
    spare.later.callback(sh, "losetup", "--detach", loop)
    only(spare, UseKind.LOOP, f"says {spare.node}")
    place = spare.directory()
    spare.do("mount", loop, place, undo=("umount", place))
    found = spare.uses()
    assert kinds(found) == [(UseKind.LOOP, spare.name), (UseKind.MOUNT, spare.name)]
    assert f"through {spare.name} - {loop.removeprefix('/dev/')}" in found[1].evidence


# Handles.


@pytest.mark.parametrize("which", ["block", "generic", "controller", "other name"])
def test_open_handle(spare: Spare, which: str) -> None:
    names = {
        "block": spare.name,
        "other name": spare.name,
        "generic": generic_name(spare.name),
        "controller": spare.drive.controller,
    }
    path = f"/dev/{names[which]}"
    if which == "other name":
        other = Path("/tmp/nvlane-test-node")
        os.mknod(other, 0o60600, Path(path).stat().st_rdev)
        spare.later.callback(other.unlink)
        path = str(other)
    pid = spare.holding("sh", "-c", f"exec 9<{path}; exec sleep 600", ready=lambda: bool(spare.uses()))
    only(spare, UseKind.OPEN, f"process {pid} ", path, device=names[which])


@contextmanager
def on_vfio(spare: Spare) -> Iterator[str]:
    """LABSPARE on vfio-pci: the path of its group's node."""
    sh("modprobe", "-a", "vfio-pci", "vfio_iommu_type1")
    device, driver = Path(spare.drive.address.sysfs), Path("/sys/bus/pci/drivers_probe")
    (device / "driver_override").write_text("vfio-pci")
    (device / "driver/unbind").write_text(str(spare.drive.address))
    driver.write_text(str(spare.drive.address))
    try:
        yield f"/dev/vfio/{(device / 'iommu_group').readlink().name}"
    finally:
        (device / "driver_override").write_text("\n")
        (device / "driver/unbind").write_text(str(spare.drive.address))
        driver.write_text(str(spare.drive.address))
        wait("the namespace is back", lambda: bool(drives()["LABSPARE"].namespaces))
        wait("its node is back", Path(f"/dev/{drives()['LABSPARE'].namespaces[0].name}").exists)


def test_a_drive_that_another_process_drives_through_vfio(spare: Spare) -> None:
    with on_vfio(spare) as node, ExitStack() as inner:
        assert spare.uses() == ()
        spare.later, outer = inner, spare.later
        pid = spare.holding("sh", "-c", f"exec 9<>{node}; exec sleep 600", ready=lambda: bool(spare.uses()))
        only(spare, UseKind.OPEN, f"process {pid} ", node, device=str(spare.drive.address))
        spare.later = outer


# The kernel's own servers.


def configfs(spare: Spare) -> Path:
    base = Path("/sys/kernel/config")
    spare.do("modprobe", "configfs")
    if not os.path.ismount(base):
        spare.do("mount", "-t", "configfs", "none", str(base), undo=("umount", str(base)))
    return base


def test_nvmet(spare: Spare) -> None:
    base = configfs(spare)
    spare.do("modprobe", "nvmet", undo=("modprobe", "-r", "nvmet"))
    subsystem = base / "nvmet/subsystems/nqn.2026-11.test:nvlane"
    namespace = subsystem / "namespaces/1"
    for directory in (subsystem, namespace):
        directory.mkdir()
        spare.later.callback(directory.rmdir)
    (namespace / "device_path").write_text(spare.node)
    assert spare.uses() == ()
    (namespace / "enable").write_text("1")
    spare.undo_write(str(namespace / "enable"), "0")
    only(spare, UseKind.EXCLUSIVE, "nvmet exports it", spare.node)


def test_scsi_target(spare: Spare) -> None:
    base = configfs(spare)
    try:
        spare.do("modprobe", "-a", "target_core_mod", "target_core_iblock")
    except CommandFailed as error:
        pytest.skip(f"this kernel has no SCSI target: {error}")
    spare.later.callback(_unload_with_holders, "target_core_mod")
    hba = base / "target/core/iblock_7"
    disk = hba / "nvlanetest"
    for directory in (hba, disk):
        directory.mkdir(parents=True)
        spare.later.callback(directory.rmdir)
    (disk / "control").write_text(f"udev_path={spare.node}")
    (disk / "enable").write_text("1")
    only(spare, UseKind.EXCLUSIVE, "SCSI target (LIO)", spare.name)


def _unload_with_holders(module: str) -> None:
    """The target loads its back ends by itself (target_core_file, _pscsi, _user): they go first."""
    for holder in [*sorted(Path(f"/sys/module/{module}/holders").iterdir()), Path(module)]:
        sh("rmmod", holder.name)


def test_zram_writes_back(spare: Spare) -> None:
    spare.do("modprobe", "zram", undo=("modprobe", "-r", "zram"))
    zram = Path("/sys/block/zram0")
    if not (zram / "backing_dev").exists():
        pytest.skip("this kernel's zram has no writeback")
    (zram / "backing_dev").write_text(spare.node)
    (zram / "disksize").write_text("1M")
    spare.undo_write(str(zram / "reset"), "1")
    only(spare, UseKind.EXCLUSIVE, "zram0 writes back to it", spare.node)
