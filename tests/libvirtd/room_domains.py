"""Domains of the rooms: definitions as users have them, and a guest that tells what it sees."""

from __future__ import annotations

IMAGES = "/var/lib/libvirt/images"
#: QEMU 7.2 emulates cmpxchg16b badly: kernels of today die of it now and then.
PROCESSOR = "<cpu mode='maximum'><feature policy='disable' name='cx16'/></cpu>"


def definition(
    name: str,
    *,
    memory: int = 256,
    ports: int = 4,
    extra: str = "",
    devices: str = "",
    boots: bool = True,
    machine: str = "q35",
    agent: bool = False,
) -> str:
    """A domain, on q35 with `ports` free root ports. It boots nvlane's probe guest, which answers on a channel, or with
    `agent` a guest of a user's own, which has the guest agent and nothing of nvlane."""
    initrd = "agent-initrd" if agent else "initrd"
    boot = f"<kernel>{IMAGES}/kernel</kernel><initrd>{IMAGES}/{initrd}</initrd><cmdline>@CMDLINE@</cmdline>"
    boot = boot if boots else ""
    channel = "org.qemu.guest_agent.0" if agent else "org.nvlane.probe.0"
    ports = ports if machine == "q35" else 0
    controllers = "".join(f"<controller type='pci' index='{n}' model='pcie-root-port'/>" for n in range(1, ports + 1))
    return f"""<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>{memory}</memory>
  {extra}
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='{machine}'>hvm</type>{boot}</os>
  <features><acpi/><apic/></features>
  {PROCESSOR}
  <on_poweroff>destroy</on_poweroff><on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {controllers}
    {devices}
    <channel type='unix'><target type='virtio' name='{channel}'/></channel>
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

#: Makes a guest of a user's own in a room.
MAKE_AGENT_GUEST = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, "/nvlane/tests/lab/inside")
import agent_guest
agent_guest.build(Path("{IMAGES}/agent-initrd"), os.listdir("/lib/modules")[0])
"""
