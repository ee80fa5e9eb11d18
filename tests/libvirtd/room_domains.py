"""Domains of the rooms: definitions as users have them, and a guest that tells what it sees."""

from __future__ import annotations

IMAGES = "/var/lib/libvirt/images"
#: QEMU 7.2 emulates cmpxchg16b badly: kernels of today die of it now and then.
PROCESSOR = "<cpu mode='maximum'><feature policy='disable' name='cx16'/></cpu>"


def definition(
    name: str, *, memory: int = 256, ports: int = 4, extra: str = "", devices: str = "", boots: bool = True
) -> str:
    """A q35 domain with `ports` free root ports; it boots nvlane's probe guest, which answers on a channel."""
    boot = (
        f"<kernel>{IMAGES}/kernel</kernel><initrd>{IMAGES}/initrd</initrd><cmdline>@CMDLINE@</cmdline>" if boots else ""
    )
    controllers = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, ports + 1))
    return f"""<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  {extra}
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>{boot}</os>
  <features><acpi/><apic/></features>
  {PROCESSOR}
  <on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {controllers}
    {devices}
    <channel type='unix'><target type='virtio' name='org.nvlane.probe.0'/></channel>
    <serial type='pty'/>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""


#: Makes the probe guest in a room, with what pmem claims need; its command line goes to stdout.
MAKE_GUEST = f"""
import os, shutil
from nvlane.apply.initramfs import build_probe_guest
guest = build_probe_guest(os.listdir("/lib/modules")[0], pmem_tools=False)
shutil.copy(guest.kernel, "{IMAGES}/kernel")
shutil.copy(guest.initrd, "{IMAGES}/initrd")
print(guest.cmdline)
"""
