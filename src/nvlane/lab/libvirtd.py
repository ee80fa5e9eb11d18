"""libvirt on a host without systemd: its daemons, and domains that boot nvlane's probe guest on nested KVM."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nvlane.apply import process
from nvlane.apply.initramfs import build_probe_guest
from nvlane.lab.waiting import process_end, until

URI = "qemu:///system"
#: Where QEMU's user gets to, unlike root's own cache.
IMAGES = Path("/var/lib/libvirt/images")
LOGS = Path("/var/log/libvirt/qemu")
#: Seconds. At the first question libvirtd asks QEMU for everything that this can do.
DEADLINE = 300.0
_KVM = Path("/dev/kvm")


@contextmanager
def daemons() -> Iterator[None]:
    """virtlogd and libvirtd, up while this lasts."""
    for directory in (LOGS, Path("/var/cache/libvirt")):
        directory.mkdir(parents=True, exist_ok=True)
    if _KVM.exists():
        # Elsewhere udev does that. Where QEMU's user may not open it, libvirt asks QEMU anew with every call
        # (virQEMUCapsIsValid, libvirt src/qemu/qemu_capabilities.c).
        _KVM.chmod(0o666)
    with ExitStack() as later:
        for name in ("virtlogd", "libvirtd"):
            process.run([name, "-d"], timeout=DEADLINE)
            later.callback(_end, name)
        until(_answers, "libvirtd's answer", timeout=DEADLINE)
        yield


def _answers() -> bool:
    return process.run(["virsh", "--connect", URI, "version"], timeout=DEADLINE, check=False).returncode == 0


def _end(name: str) -> None:
    number = int(Path(f"/run/{name}.pid").read_text())
    os.kill(number, signal.SIGTERM)
    process_end(number, timeout=DEADLINE)


def virsh(*words: str) -> str:
    """What virsh prints. Raises CommandFailed with libvirt's words."""
    return process.run(["virsh", "--quiet", "--connect", URI, *words], timeout=DEADLINE).stdout


@contextmanager
def defined(
    name: str, *, memory: int = 256, ports: int = 4, extra: str = "", pmem_tools: bool = False
) -> Iterator[str]:
    """A q35 domain with `ports` free root ports while this lasts, ended at the end if it runs; its definition, as
    libvirt shows it. `memory` is in MiB, `extra` more XML, `pmem_tools` says whether its guest has those."""
    try:
        _define(name, memory, ports, extra, pmem_tools=pmem_tools)
        yield definition(name)
    finally:
        for verb in ("destroy", "undefine"):  # one that does not run is not destroyed
            process.run(["virsh", "--connect", URI, verb, name], timeout=DEADLINE, check=False)


def definition(name: str) -> str:
    """The XML that it starts from next."""
    return virsh("dumpxml", "--inactive", name)


def console_of(name: str) -> Path:
    """What its guest printed."""
    return LOGS / f"{name}-console.log"


def _define(name: str, memory: int, ports: int, extra: str, *, pmem_tools: bool) -> None:
    guest = build_probe_guest(os.uname().release, pmem_tools=pmem_tools)
    kernel, initrd = (shutil.copy(file, IMAGES) for file in (guest.kernel, guest.initrd))
    controllers = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, ports + 1))
    path = Path(f"/tmp/{name}.xml")
    path.write_text(f"""<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  {extra}
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kernel}</kernel><initrd>{initrd}</initrd><cmdline>{guest.cmdline}</cmdline>
  </os>
  <features><acpi/><apic eoi='off'/></features>
  <cpu mode='host-passthrough'/>
  <on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {controllers}
    <channel type='unix'><target type='virtio' name='org.nvlane.probe.0'/></channel>
    <serial type='file'><source path='{console_of(name)}'/></serial>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
""")
    try:
        for _ in range(2):  # its own words, read back, are what it shows from then on
            virsh("define", str(path))
            path.write_text(definition(name))
    finally:
        path.unlink()
