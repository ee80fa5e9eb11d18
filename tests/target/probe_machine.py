"""A small guest for protocol trials: the lab's kernel and nvlane's own probe, emulated, with no disk of QEMU's."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from guest import FIRST_SLOT, PROCESSOR, Disk

from nvlane.apply.initramfs import ProbeGuestImage, build_probe_guest
from nvlane.apply.process import run
from nvlane.lab.emulator import emulator
from nvlane.lab.image import image
from nvlane.lab.start import quiet
from nvlane.model.errors import WireError
from nvlane.verify.probe import ProbeGuest
from nvlane.wire.qmp import Qmp

MIB = 1 << 20
MEMORY = 160 * MIB
BOOT_DEADLINE = 90.0


@cache
def guest_image() -> ProbeGuestImage:
    """The probe guest made of the lab's kernel, whose modules are read out of the image without mounting it."""
    root = image(quiet)
    release = (root.kernel.parent / "release").read_text().strip()
    scratch = Path(mkdtemp(prefix="nvlane-modules-"))
    # One MiB: the partition table stands before the file system.
    run(["debugfs", "-R", f"rdump /usr/lib/modules/{release} {scratch}", f"{root.disk}?offset={MIB}"])
    return build_probe_guest(release, modules_root=scratch, kernel=root.kernel, pmem_tools=False)


@dataclass(frozen=True, kw_only=True)
class Disposal:
    """How a machine is started besides its disks."""

    waits: bool = False
    """For a migration to come in, and paused after it."""
    slots: int = 0
    """For memory that is plugged in."""


class Machine:
    """A machine that runs; as a context manager it is ended."""

    def __init__(self, directory: Path, name: str, disks: Sequence[Disk], how: Disposal | None = None) -> None:
        how = how or Disposal()
        self._directory, self._name = directory, name
        self.disks = {disk.name: FIRST_SLOT + index for index, disk in enumerate(disks)}
        qemu = emulator(quiet)
        words = [*qemu.argv, *self._arguments(guest_image(), disks, how)]
        with self.path("log").open("wb") as log:
            environment = {**os.environ, **dict(qemu.environment)}
            self._qemu = subprocess.Popen(words, stdout=log, stderr=log, env=environment)
        try:
            self._until(self._listens)
            self.monitor = Qmp.connect(str(self.path("qmp")), pid=self._qemu.pid)
            self.probe = ProbeGuest(self.path("probe"))
            if not how.waits:
                self.probe.wait_until_up(deadline=BOOT_DEADLINE)
        except BaseException:
            self.end()
            raise

    def path(self, kind: str) -> Path:
        return self._directory / f"{self._name}-{kind}"

    def _arguments(self, kernel: ProbeGuestImage, disks: Sequence[Disk], how: Disposal) -> list[str]:
        slots = f",slots={how.slots},maxmem={MEMORY // MIB + 1024}M" if how.slots else ""
        return [
            *("-accel", "tcg,thread=multi,tb-size=128", "-cpu", PROCESSOR, "-smp", "2"),
            *("-machine", "q35,memory-backend=ram,sata=off,smbus=off", "-m", f"{MEMORY // MIB}M{slots}"),
            *("-object", f"memory-backend-memfd,id=ram,size={MEMORY},share=on"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-kernel", str(kernel.kernel), "-initrd", str(kernel.initrd), "-append", kernel.cmdline),
            *("-serial", f"file:{self.path('console')}"),
            *("-qmp", f"unix:{self.path('qmp')},server=on,wait=off"),
            *("-chardev", f"socket,id=probe,path={self.path('probe')},server=on,wait=off"),
            *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=probe,name=org.nvlane.probe.0"),
            *(word for disk in disks for word in disk.arguments(self.disks[disk.name])),
            *(("-incoming", "defer", "-S") if how.waits else ()),
        ]

    def node(self, disk: str) -> str:
        """The device node of a disk in the guest."""
        by: dict[str, object] = {"pci": f"0000:00:{self.disks[disk]:02x}.0"}
        return self.probe.resolve(by, deadline=20)

    def digest(self, node: str, offset: int, length: int) -> str:
        """SHA-256 of a part of a disk, read past the guest's cache."""
        answer = self.probe.call("digest", deadline=60, device=node, ranges=[[offset, length]])
        assert answer["direct"]
        return str(answer["sha256"])

    def save_memory(self) -> Path:
        """All of the guest's memory as a file."""
        path = self.path("memory")
        self.monitor.execute("pmemsave", {"val": 0, "size": MEMORY, "filename": str(path)}, deadline=60)
        return path

    def migration(self, status: str, *, deadline: float = 90.0) -> dict[str, Any]:
        """Wait until the migration has come that far."""
        until = time.monotonic() + deadline
        while True:
            found: dict[str, Any] = self.monitor.execute("query-migrate")
            if found.get("status") == status:
                return found
            assert found.get("status") not in ("failed", "cancelled"), f"{json.dumps(found)}\n{self.last_words()}"
            assert time.monotonic() < until, f"{json.dumps(found)}\n{self.last_words()}"
            time.sleep(0.05)

    def _listens(self) -> bool:
        """The path is there before anybody listens behind it."""
        with socket.socket(socket.AF_UNIX) as knock:
            return knock.connect_ex(str(self.path("qmp"))) == 0

    def _until(self, true: Callable[[], bool], deadline: float = 20.0) -> None:
        until = time.monotonic() + deadline
        while not true():
            assert self._qemu.poll() is None and time.monotonic() < until, self.last_words()
            time.sleep(0.01)

    def last_words(self) -> str:
        texts = (self.path(kind) for kind in ("log", "console"))
        return "\n".join(f"{text}:\n{text.read_text(errors='replace')[-2000:]}" for text in texts if text.exists())

    def end(self) -> None:
        for link in ("monitor", "probe"):
            if hasattr(self, link):
                getattr(self, link).close()
        if self._qemu.poll() is None:
            self._qemu.kill()
        self._qemu.wait()

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@contextmanager
def load(machine: Machine, disks: Sequence[str], area: int) -> Iterator[list[int]]:
    """Writes and reads on every disk, again and again, until the block or the machine ends."""
    nodes = [machine.node(disk) for disk in disks]
    rounds: list[int] = []
    stop = threading.Event()

    def work() -> None:
        seed = 0
        while not stop.is_set():
            for node in nodes:
                seed += 1
                try:
                    answer = machine.probe.call(
                        "write_pattern", deadline=20, device=node, offset=0, length=area, seed=seed
                    )
                except WireError:
                    return
                assert answer["matches"], f"{node}: what was written was not read back"
            rounds.append(seed)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield rounds
    finally:
        stop.set()
        thread.join()
