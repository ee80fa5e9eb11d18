"""Does KVM really work here? Asked of KVM by booting a kernel, not of /dev/kvm.

The lab's own kernel is what is booted, for the QEMU that will run the lab; see `apply.kvm_probe`.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply.kvm_probe import probe_kvm
from nvlane.lab import cache
from nvlane.lab.emulator import Emulator
from nvlane.lab.image import Image
from nvlane.lab.machine import Accelerator
from nvlane.model.errors import SpecError

_DEADLINE = 5.0


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
        if forced not in set(Accelerator):
            raise SpecError(f"'{forced}' is neither 'kvm' nor 'tcg'", place="NVLANE_LAB_ACCEL")
        return Choice(accelerator=Accelerator(forced), why="NVLANE_LAB_ACCEL says so")
    opens = os.access(node, os.R_OK | os.W_OK)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    name = cache.key(boot, emulator.version_text, image.key, str(os.geteuid()), str(opens))

    def make(directory: Path) -> None:
        answer = probe_kvm(
            emulator.argv, image.kernel, node=node, environment=dict(emulator.environment), deadline=_DEADLINE
        )
        accelerator = Accelerator.KVM if answer.usable else Accelerator.TCG
        (directory / "choice.json").write_text(json.dumps({"accelerator": accelerator, "why": answer.reason}))

    kept = json.loads((cache.kept("accelerator", name, make) / "choice.json").read_text())
    return Choice(accelerator=Accelerator(kept["accelerator"]), why=kept["why"])
