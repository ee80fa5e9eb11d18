"""A real guest: QEMU with Debian 13's kernel and the lab's root, emulated, with vhost-user devices of a target."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvlane.apply.process import run
from nvlane.lab.emulator import Emulator, emulator
from nvlane.lab.image import Image, image
from nvlane.lab.machine import ROOT_PARTITION
from nvlane.lab.start import quiet
from nvlane.wire.lines import LineSocket, PeerClosed
from nvlane.wire.qmp import Qmp

HERE = Path(__file__).parent
MEMORY = 768
BOOT_DEADLINE = 90.0
FIRST_SLOT = 0x10
# Fast string instructions are slow where they are emulated: see nvlane.lab.machine.
PROCESSOR = "max,erms=off,fsrm=off,fzrm=off,fsrs=off"

TROUBLE = re.compile(r"I/O error|\breset|\babort|timed out|hung|Power-on", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One vhost-user device of the guest."""

    name: str
    socket: Path
    frontend: str
    packed: bool = False
    queues: int = 2

    def arguments(self, slot: int) -> list[str]:
        chardev = f"socket,id=link-{self.name},path={self.socket},reconnect-ms=50"
        device: dict[str, Any] = {
            "driver": f"vhost-user-{self.frontend}-pci",
            "id": self.name,
            "chardev": f"link-{self.name}",
            "addr": f"{slot:#x}",
            "packed": self.packed,
            ("num-queues" if self.frontend == "blk" else "num_queues"): self.queues,
        }
        if self.frontend == "blk":
            device["queue-size"] = 128
        return ["-chardev", chardev, "-device", json.dumps(device)]


class Guest:
    """A machine that runs; as a context manager it is ended."""

    def __init__(
        self, directory: Path, disks: Sequence[Disk], *, name: str = "guest", tools: Path | None = None
    ) -> None:
        """`tools`: a directory that the guest finds as /nvlane/tools."""
        self.directory = directory
        self.disks = {disk.name: FIRST_SLOT + index for index, disk in enumerate(disks)}
        self._name = name
        self._number = 0
        self._heard = 0
        self._replies: dict[int, dict[str, Any]] = {}
        payload(self._path("payload.img"), tools)
        qemu, root = emulator(quiet), image(quiet)
        words = [*qemu.argv, *self._arguments(root, disks)]
        with self._path("qemu.log").open("wb") as log:
            self._qemu = subprocess.Popen(words, stdout=log, stderr=log, env=_environment(qemu))
        try:
            self._lines = self._connect()
        except BaseException:
            self.end()
            raise

    def _path(self, kind: str) -> Path:
        return self.directory / f"{self._name}-{kind}"

    def _arguments(self, root: Image, disks: Sequence[Disk]) -> list[str]:
        command_line = (
            f"root=PARTUUID={ROOT_PARTITION} rootwait ro init=/usr/sbin/nvlane-lab-init console=ttyS0 quiet "
            "mitigations=off tsc=reliable random.trust_cpu=on lpj=4600000 panic=-1"
        )
        return [
            *("-accel", "tcg,thread=multi,tb-size=256", "-cpu", PROCESSOR, "-smp", "2", "-m", f"{MEMORY}M"),
            *("-machine", "q35,memory-backend=ram,sata=off,smbus=off"),
            *("-object", f"memory-backend-memfd,id=ram,size={MEMORY}M,share=on"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
            *("-kernel", str(root.kernel), "-append", command_line),
            *("-serial", f"file:{self._path('console.log')}"),
            *("-qmp", f"unix:{self._path('qmp.sock')},server=on,wait=off"),
            *("-drive", f"file={root.disk},format=raw,if=none,id=root,snapshot=on"),
            *("-device", "nvme,drive=root,serial=ROOT,addr=0x3"),
            *("-drive", f"file={self._path('payload.img')},format=raw,if=none,id=payload"),
            *("-device", "virtio-blk-pci,drive=payload,addr=0x4"),
            *("-chardev", f"socket,id=agent,path={self._path('agent.sock')},server=on,wait=off"),
            *("-device", "virtio-serial-pci,addr=0x5"),
            *("-device", "virtserialport,chardev=agent,name=org.nvlane.test.0"),
            *(word for disk in disks for word in disk.arguments(self.disks[disk.name])),
        ]

    def _connect(self) -> LineSocket:
        """The connection to the agent, once it has said that it is there."""
        until = time.monotonic() + BOOT_DEADLINE
        while True:
            assert self._qemu.poll() is None, self.last_words()
            assert time.monotonic() < until, self.last_words()
            try:
                lines = LineSocket(self._path("agent.sock"))
                break
            except PeerClosed:
                time.sleep(0.02)
        try:
            assert json.loads(lines.receive_line(deadline=until - time.monotonic())) == {"id": 0}
        except BaseException as error:
            lines.close()
            raise AssertionError(self.last_words()) from error
        return lines

    def last_words(self) -> str:
        """What QEMU and the console said."""
        texts = [self._path(kind) for kind in ("qemu.log", "console.log")]
        return "\n".join(f"{text}:\n{text.read_text(errors='replace')[-3000:]}" for text in texts if text.exists())

    def begin(self, *argv: str, stdin: str = "") -> int:
        """Start a command; `wait` gives its end."""
        self._number += 1
        self._lines.send({"id": self._number, "argv": argv, "stdin": stdin}, deadline=20)
        return self._number

    def wait(self, number: int, *, deadline: float = 60.0, check: bool = True) -> str:
        """The standard output of a command that was begun."""
        until = time.monotonic() + deadline
        while number not in self._replies:
            line = self._lines.receive_line(deadline=until - time.monotonic())
            reply = json.loads(line)
            self._replies[reply["id"]] = reply
        done = self._replies.pop(number)
        text: str = done["stdout"]
        if check:
            assert done["status"] == 0, f"exit status {done['status']}\n{text[-2000:]}\n{done['stderr'][-2000:]}"
        return text

    def run(self, *argv: str, stdin: str = "", deadline: float = 60.0, check: bool = True) -> str:
        """A command and its standard output."""
        return self.wait(self.begin(*argv, stdin=stdin), deadline=deadline, check=check)

    def shell(self, script: str, *, deadline: float = 60.0, check: bool = True) -> str:
        return self.run("sh", "-ec", script, deadline=deadline, check=check)

    def block(self, name: str, lun: int = 0, *, deadline: float = 20.0) -> str:
        """The node of a disk in the guest, found by its place on the PCI bus."""
        where = f"/sys/bus/pci/devices/0000:00:{self.disks[name]:02x}.0"
        script = f"""
            for disk in {where}/virtio*/block/* {where}/virtio*/host*/target*:{lun}/*:{lun}:0/block/*; do
                [ -d "$disk" ] && echo "/dev/${{disk##*/}}" && exit 0
            done; exit 1"""
        until = time.monotonic() + deadline
        while not (found := self.shell(script, check=False).strip()):
            assert time.monotonic() < until, f"{name} has no disk in the guest\n{self.last_words()}"
            time.sleep(0.1)
        return found

    def monitor(self) -> Qmp:
        """One client at a time."""
        return Qmp.connect(str(self._path("qmp.sock")), pid=self._qemu.pid)

    def complaints(self) -> list[str]:
        """What the guest's kernel has said of disks in trouble since it found them all."""
        said = self.run("dmesg").splitlines()
        return [line for line in said[self._heard :] if TROUBLE.search(line)]

    def listen_from_now(self) -> None:
        """A disk that is found says that it was powered on, which is no trouble."""
        for name in self.disks:
            self.block(name)
        self._heard = len(self.run("dmesg").splitlines())

    def end(self) -> None:
        """End it at once."""
        if hasattr(self, "_lines"):
            self._lines.close()
        if self._qemu.poll() is None:
            self._qemu.send_signal(signal.SIGKILL)
        self._qemu.wait()

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


def payload(path: Path, tools: Path | None = None) -> None:
    """The disk that the lab's PID 1 reads the rest of its start from."""
    with tempfile.TemporaryDirectory(prefix="nvlane-") as staging:
        shutil.copy(HERE / "guest_boot.sh", Path(staging, "boot.sh"))
        shutil.copy(HERE / "guest_agent.py", Path(staging, "guest_agent.py"))
        if tools:
            shutil.copytree(tools, Path(staging, "tools"), symlinks=True)
        with path.open("wb") as file:
            file.truncate(32 << 20)
        options = ["-O", "^has_journal", "-E", "root_owner=0:0", "-m", "0"]
        run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", staging, str(path)])


def _environment(qemu: Emulator) -> dict[str, str]:
    return {**os.environ, **dict(qemu.environment)}
