"""LABSPARE, the lab's drive for tests: what a test does to it is undone in reverse."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.apply.linux_reader import LinuxReader
from nvlane.facts.attribute import attribute
from nvlane.facts.drives import read_drives
from nvlane.facts.nvme_nodes import controllers
from nvlane.facts.pci import read_functions
from nvlane.facts.shape import Drive, PciFunction, Use, UseKind
from nvlane.facts.usage import read_uses, take_survey

HOST = LinuxReader()
MIB = 1 << 20
SAVED = 8 * MIB
_BLKRRPART = 0x125F  # include/uapi/linux/fs.h


def sh(*argv: str, text: str | None = None) -> str:
    return process.run(argv, input=text).stdout


def drives(*serials: str) -> dict[str, Drive]:
    """The lab's drives as facts tell them, by serial; all of them without arguments. No virtual functions."""
    functions = [f for f in read_functions(HOST) if f.is_nvme and f.physical_function is None]
    wanted = [f for f in functions if not serials or _serial(f) in serials]
    return {drive.serial: drive for drive in read_drives(HOST, wanted, take_survey(HOST), {})}


def _serial(function: PciFunction) -> str:
    names = controllers(HOST, function.address)
    return attribute(HOST, f"/sys/class/nvme/{names[0]}/serial") if names else ""


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
        log = Path("/tmp/nvlane-test-holding.log")
        self.later.callback(log.unlink)
        pid = process.spawn(argv, log=log)
        self.later.callback(end, pid)
        wait(f"{argv} is ready", ready)
        return pid


@contextmanager
def spare_drive() -> Iterator[Spare]:
    """The drive, unused; what a test wrote at its ends, and the modules that came with it, are put back."""
    drive = drives("LABSPARE")["LABSPARE"]
    assert drive.uses == ()
    size = drive.namespaces[0].size
    with Path(f"/dev/{drive.namespaces[0].name}").open("rb") as device:
        front = device.read(SAVED)
        device.seek(size - SAVED)
        back = device.read(SAVED)
    try:
        with modules_as_before(), ExitStack() as later:
            yield Spare(drive=drive, later=later)
    finally:
        again = drives("LABSPARE")["LABSPARE"]
        with Path(f"/dev/{again.namespaces[0].name}").open("r+b") as device:
            device.write(front)
            device.seek(size - SAVED)
            device.write(back)
    assert again.uses == ()


@contextmanager
def modules_as_before() -> Iterator[None]:
    """Modules that were loaded meanwhile, also by the kernel itself, are unloaded, the users of others first."""
    before = set(_modules())
    yield
    while idle := [name for name, users in _modules().items() if name not in before and users == 0]:
        sh("rmmod", *idle)
    assert set(_modules()) == before


def _modules() -> dict[str, int]:
    """Loaded modules and how often each is used."""
    lines = (line.split() for line in Path("/proc/modules").read_text().splitlines())
    return {fields[0]: int(fields[2]) for fields in lines}


def _table(node: str, sector: bytes) -> None:
    with Path(node).open("r+b", buffering=0) as device:
        device.write(sector)
        fcntl.ioctl(device, _BLKRRPART)


def end(pid: int) -> None:
    os.kill(pid, 9)
    os.waitpid(pid, 0)


def kinds(uses: tuple[Use, ...]) -> list[tuple[UseKind, str]]:
    return [(use.kind, use.device) for use in uses]


def only(spare: Spare, kind: UseKind, *evidence: str, device: str = "") -> None:
    """Exactly this use, with these words."""
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
        wait("its namespace is back", _is_back)


def _is_back() -> bool:
    there = drives("LABSPARE").get("LABSPARE")
    return there is not None and bool(there.namespaces) and Path(f"/dev/{there.namespaces[0].name}").exists()
