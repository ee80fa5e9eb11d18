"""Does KVM really work here? Asked of KVM by booting a kernel, not of /dev/kvm.

A device node proves nothing: on some clouds /dev/kvm opens, creates a machine, and then ordinary kernels die at their
first instructions or QEMU aborts on a model-specific register. So the lab's own kernel is booted without a root file
system until it says that it found none; that is far beyond paging, interrupts and timers, and takes under two seconds.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import cache
from nvlane.lab.emulator import Emulator
from nvlane.lab.image import Image
from nvlane.lab.machine import Accelerator
from nvlane.model.errors import CommandFailed

_DEADLINE = 5.0
_PROOF = "VFS: Unable to mount root fs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The accelerator, and why, as one sentence."""

    accelerator: Accelerator
    why: str


def choose(emulator: Emulator, image: Image, *, node: Path = Path("/dev/kvm")) -> Choice:
    """KVM where it boots a kernel within five seconds, else TCG. NVLANE_LAB_ACCEL=kvm|tcg decides without asking.

    The answer is kept until the machine reboots, because where KVM is broken asking takes the whole deadline.
    """
    if forced := os.environ.get("NVLANE_LAB_ACCEL"):
        return Choice(accelerator=Accelerator(forced), why="NVLANE_LAB_ACCEL says so")
    if not node.exists():
        return Choice(accelerator=Accelerator.TCG, why=f"there is no {node}")
    if not os.access(node, os.R_OK | os.W_OK):
        return Choice(accelerator=Accelerator.TCG, why=f"{node} may not be opened by this user")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    name = cache.key(boot, emulator.version_text, image.key, str(os.geteuid()))

    def make(directory: Path) -> None:
        choice = _try(emulator, image)
        (directory / "choice.json").write_text(json.dumps({"accelerator": choice.accelerator, "why": choice.why}))

    kept = json.loads((cache.kept("accelerator", name, make) / "choice.json").read_text())
    return Choice(accelerator=Accelerator(kept["accelerator"]), why=kept["why"])


def _try(emulator: Emulator, image: Image) -> Choice:
    argv = [
        *emulator.argv,
        *("-machine", "q35,accel=kvm,kernel-irqchip=split", "-cpu", "host", "-m", "256", "-nodefaults"),
        *("-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-append", "console=ttyS0 panic=-1"),
    ]
    said: list[str] = []
    try:
        for line in process.stream(argv, timeout=_DEADLINE, env=dict(emulator.environment)):
            said.append(line)
            if _PROOF in line:
                return Choice(accelerator=Accelerator.KVM, why="KVM booted a kernel")
    except CommandFailed as error:
        last = next((line for line in reversed(said) if line.strip()), "nothing")
        return Choice(
            accelerator=Accelerator.TCG,
            why=f"/dev/kvm is there, but a kernel did not boot on it ({error.status}; it last said: {last[:120]!r})",
        )
    return Choice(accelerator=Accelerator.TCG, why="/dev/kvm is there, but a kernel ended on it before its time")
