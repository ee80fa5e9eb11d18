"""Parts of the kernel that use a block device and show it in none of its `holders`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from nvlane.facts.attribute import attribute, link_name, names
from nvlane.model.host import HostReader

_NVMET = "/sys/kernel/config/nvmet/subsystems"
_LIO = "/sys/kernel/config/target/core"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelClaim:
    """A device (path of its node, or its block name) that the kernel uses, and what says so."""

    device: str
    evidence: str


def read_kernel_claims(host: HostReader) -> tuple[KernelClaim, ...]:
    """The exports of nvmet (NVMe-oF), LIO (iSCSI, vhost-scsi, FC) and rnbd, and the backing devices of zram."""
    return (*_nvmet(host), *_lio(host), *_zram(host), *_rnbd(host))


def _nvmet(host: HostReader) -> Iterator[KernelClaim]:
    for subsystem in names(host, _NVMET):
        base = f"{_NVMET}/{subsystem}"
        places = [f"{base}/namespaces/{nsid}" for nsid in names(host, f"{base}/namespaces")]
        for place in (*places, f"{base}/passthru"):
            # Only an enabled one has the device open (nvmet_ns_enable, nvmet_passthru_ctrl_enable).
            if attribute(host, f"{place}/enable") == "1" and (path := attribute(host, f"{place}/device_path")):
                yield KernelClaim(device=path, evidence=f"nvmet exports it: {place}/device_path says {path}")


def _lio(host: HostReader) -> Iterator[KernelClaim]:
    for hba in names(host, _LIO):
        if not hba.startswith(("iblock_", "fileio_", "pscsi_")):
            continue
        for name in names(host, f"{_LIO}/{hba}"):
            info = attribute(host, f"{_LIO}/{hba}/{name}/info")
            # 'iBlock device: nvme0n1  UDEV PATH: …' (target_core_iblock.c), 'File: /dev/nvme0n1  Size: …' (_file.c)
            match = re.search(r"iBlock device: (\S+)|File: (/\S+)", info)
            if match:
                device = match[1] or match[2]
                evidence = f"the SCSI target (LIO) exports it: {_LIO}/{hba}/{name}/info says {device}"
                yield KernelClaim(device=device, evidence=evidence)


def _zram(host: HostReader) -> Iterator[KernelClaim]:
    for name in names(host, "/sys/class/block"):
        if name.startswith("zram"):
            path = attribute(host, f"/sys/class/block/{name}/backing_dev")
            if path and path != "none":
                evidence = f"{name} writes back to it: /sys/class/block/{name}/backing_dev says {path}"
                yield KernelClaim(device=path, evidence=evidence)


def _rnbd(host: HostReader) -> Iterator[KernelClaim]:
    base = "/sys/class/rnbd-server/ctl/devices"
    for name in names(host, base):
        if device := link_name(host, f"{base}/{name}/block_dev"):
            yield KernelClaim(device=device, evidence=f"rnbd exports it: {base}/{name}/block_dev")
