"""Does KVM really work? Asked by booting a kernel under it, not by opening /dev/kvm.

A device node proves nothing: on some clouds /dev/kvm opens and makes a machine, and then ordinary kernels die at their
first instructions or QEMU aborts on a model-specific register. So a kernel is booted until it speaks on its console:
start_kernel opens that after paging, timekeeping and interrupts (init/main.c), and it takes a second.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from nvlane.apply import process
from nvlane.facts.shape import Kvm
from nvlane.model.errors import CommandFailed, HostError

#: Seconds. A broken KVM mostly ends QEMU at once; a nested one under emulation, on a busy machine, takes long to be
#: proven with a large kernel.
DEADLINE: Final = 60.0
#: The kernel's first line, which waits in its buffer until there is a console. It is a notice: with loglevel 6 little
#: else is printed, for each letter costs two exits of the guest.
_PROOF: Final = "Linux version"
_KERNEL: Final = ("-append", "console=ttyS0 loglevel=6 panic=-1 mitigations=off nokaslr")
#: QEMU stops the guest and lives on when KVM gives up (accel/kvm/kvm-all.c).
_FAILURE: Final = "KVM internal error"


def probe_kvm(
    qemu: Sequence[str],
    kernel: Path | None,
    *,
    node: Path = Path("/dev/kvm"),
    environment: Mapping[str, str] | None = None,
    deadline: float = DEADLINE,
) -> Kvm:
    """Whether KVM boots `kernel` with this QEMU (`qemu` is the start of its command line) within `deadline` seconds."""
    if not node.exists():
        return Kvm(usable=False, reason=f"there is no {node}: no kvm module, or no virtualisation in the firmware")
    if not os.access(node, os.R_OK | os.W_OK):
        return Kvm(usable=False, reason=f"{node} may not be opened by this user; add them to the group kvm")
    if kernel is None:
        return Kvm(usable=False, reason=f"{node} is there, but no kernel was found under /boot to prove it with")
    argv = [
        *(*qemu, "-machine", "q35,accel=kvm", "-cpu", "host", "-m", "256", "-nodefaults", "-no-user-config"),
        *("-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", str(kernel), *_KERNEL),
    ]
    said: list[str] = []
    try:
        for line in process.stream(argv, timeout=deadline, env=dict(environment or {})):
            said.append(line)
            if _PROOF in line:
                return Kvm(usable=True, reason="KVM booted a kernel")
            if _FAILURE in line:
                return Kvm(usable=False, reason=f"{node} is there, but a kernel died on it: {line.strip()[:100]}")
    except (CommandFailed, HostError) as error:
        status = error.status if isinstance(error, CommandFailed) else error.message
        last = next((line.strip() for line in reversed(said) if line.strip()), "nothing")
        why = f"{node} is there, but no kernel boots on it ({status}; last words: {last[:100]!r})"
        return Kvm(usable=False, reason=why)
    return Kvm(usable=False, reason=f"{node} is there, but a kernel ended on it before it said a word")
