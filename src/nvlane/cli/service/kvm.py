"""Whether KVM really works here, asked once a boot: where it is broken, asking may take the whole deadline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from nvlane.apply.kvm_probe import probe_kvm
from nvlane.apply.operations.processes import boot_id
from nvlane.apply.probe_cache import ProbeCache
from nvlane.facts.shape import Kvm
from nvlane.model.codec import decode, encode
from nvlane.model.host import HostReader


def kvm_prober(host: HostReader, cache: ProbeCache) -> Callable[[str], Kvm]:
    """What `read_facts` calls with the path of a QEMU binary."""

    def works(qemu: str) -> Kvm:
        kernel = installed_kernel(host)
        binary = host.stat(qemu)
        user = host.effective_uid()
        key = f"kvm-{boot_id(host)}-{qemu}-{binary.inode}-{binary.mtime_ns}-{kernel}-{user}"
        kept = cache.get(key)
        if kept is not None:
            return decode(Kvm, json.loads(kept))
        answer = probe_kvm((qemu,), kernel)
        cache.put(key, json.dumps(encode(answer)))
        return answer

    return works


def installed_kernel(host: HostReader) -> Path | None:
    """The running kernel's file, else the last of those under /boot; None when there is none."""
    running = f"/boot/vmlinuz-{host.read_text('/proc/sys/kernel/osrelease').strip()}"
    if host.exists(running):
        return Path(running)
    names = host.listdir("/boot") if host.exists("/boot") else []
    return next((Path("/boot", name) for name in reversed(names) if name.startswith("vmlinuz-")), None)
