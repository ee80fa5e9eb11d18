"""Whether KVM really works here, asked once a boot for each QEMU."""

from __future__ import annotations

import json
from pathlib import Path

from nvlane.apply.kvm_probe import probe_kvm
from nvlane.apply.probe_cache import ProbeCache
from nvlane.facts.shape import Kvm
from nvlane.model.codec import decode, encode


def kvm_works(qemu: str) -> Kvm:
    """By booting a kernel with this QEMU. The answer is kept until the next boot; a missing node costs nothing to ask."""
    if not Path("/dev/kvm").exists():
        return probe_kvm([qemu], None)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    cache, key = ProbeCache(), f"kvm {boot} {qemu} {Path(qemu).stat().st_mtime_ns}"
    kept = cache.get(key)
    if kept is not None:
        return decode(Kvm, json.loads(kept))
    found = probe_kvm([qemu], _kernel())
    cache.put(key, json.dumps(encode(found)))
    return found


def _kernel() -> Path | None:
    """The running kernel if it is installed, else the newest that is. Some distributions let only root read them."""
    release = Path("/proc/sys/kernel/osrelease").read_text(encoding="ascii").strip()
    installed = sorted(Path("/boot").glob("vmlinuz-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    running = [path for path in installed if path.name == f"vmlinuz-{release}"]
    return next(iter([*running, *installed]), None)
