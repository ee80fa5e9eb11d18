"""NVMe over Fabrics on this host: what it is connected to, what it exports, and what its kernel can."""

from __future__ import annotations

import re
from typing import Final

from nvlane.facts.attribute import attribute, names, number
from nvlane.facts.nvme_nodes import namespace_names
from nvlane.facts.shape import ExportedNamespace, ExportedSubsystem, ExportPort, FabricConnection, Fabrics
from nvlane.model.host import HostReader
from nvlane.model.tls_psk import TARGET_KEYRING

CONFIGFS: Final = "/sys/kernel/config"
NVMET: Final = f"{CONFIGFS}/nvmet"
#: The character device through which a Host connects; reading it tells the options that this kernel takes (5.17).
DEVICE: Final = "/dev/nvme-fabrics"
_FABRICS: Final = frozenset({"tcp", "rdma", "fc", "loop"})


def read_fabrics(host: HostReader) -> Fabrics:
    """Everything of this subject. What is not loaded shows nothing: then nothing is known, and nothing is wrong."""
    return Fabrics(
        host_nqn=attribute(host, "/etc/nvme/hostnqn"),
        host_id=attribute(host, "/etc/nvme/hostid"),
        options=_options(host),
        configfs=configfs_mounted(host),
        connections=read_connections(host),
        ports=_ports(host),
        subsystems=_subsystems(host),
        tls_daemon=_runs_here(host, "tlshd"),
        tls_keyring=re.search(rf" keyring +{re.escape(TARGET_KEYRING)}:", attribute(host, "/proc/keys")) is not None,
    )


def configfs_mounted(host: HostReader) -> bool:
    lines = attribute(host, "/proc/self/mountinfo").splitlines()
    return any(line.partition(" - ")[0].split()[4] == CONFIGFS for line in lines)


def read_connections(host: HostReader) -> tuple[FabricConnection, ...]:
    """The controllers that came over a fabric, by name; discovery controllers are left out."""
    found = []
    for name in names(host, "/sys/class/nvme"):
        base = f"/sys/class/nvme/{name}"
        transport = attribute(host, f"{base}/transport")
        if transport not in _FABRICS or attribute(host, f"{base}/cntrltype", "io") == "discovery":
            continue
        parts = dict(part.split("=", 1) for part in attribute(host, f"{base}/address").split(",") if "=" in part)
        found.append(
            FabricConnection(
                controller=name,
                nqn=attribute(host, f"{base}/subsysnqn"),
                transport=transport,
                address=parts.get("traddr", ""),
                service=parts.get("trsvcid", ""),
                host_address=parts.get("host_traddr", ""),
                host_nqn=attribute(host, f"{base}/hostnqn"),
                state=attribute(host, f"{base}/state"),
                namespaces=tuple(namespace_names(host, name)),
            )
        )
    return tuple(found)


def find_namespace(host: HostReader, nqn: str, nsid: int) -> str:
    """The block node ('nvme4n1') of a namespace of a connected subsystem; '' while there is none. With native multipath
    it belongs to the subsystem, whichever path brought it; without, to its one controller."""
    for connection in read_connections(host):
        if connection.nqn == nqn:
            for name in connection.namespaces:
                if number(host, f"/sys/class/block/{name}/nsid", -1) == nsid:
                    return name
    return ""


def exported_path(host: HostReader, nqn: str, nsid: int) -> str:
    """What stands behind a namespace that this host itself exports; '' when it does not."""
    return attribute(host, f"{NVMET}/subsystems/{nqn}/namespaces/{nsid}/device_path")


def _options(host: HostReader) -> tuple[str, ...]:
    return tuple(part.partition("=")[0] for part in attribute(host, DEVICE).split(",") if part)


def _ports(host: HostReader) -> tuple[ExportPort, ...]:
    found = []
    for name in names(host, f"{NVMET}/ports"):
        base = f"{NVMET}/ports/{name}"
        found.append(
            ExportPort(
                number=int(name),
                transport=attribute(host, f"{base}/addr_trtype"),
                address=attribute(host, f"{base}/addr_traddr"),
                service=attribute(host, f"{base}/addr_trsvcid"),
                subsystems=tuple(names(host, f"{base}/subsystems")),
            )
        )
    return tuple(sorted(found, key=lambda port: port.number))


def _subsystems(host: HostReader) -> tuple[ExportedSubsystem, ...]:
    found = []
    for nqn in names(host, f"{NVMET}/subsystems"):
        base = f"{NVMET}/subsystems/{nqn}"
        namespaces = sorted(names(host, f"{base}/namespaces"), key=int)
        found.append(
            ExportedSubsystem(
                nqn=nqn,
                any_host=attribute(host, f"{base}/attr_allow_any_host") == "1",
                hosts=tuple(names(host, f"{base}/allowed_hosts")),
                namespaces=tuple(
                    ExportedNamespace(
                        nsid=int(nsid),
                        path=attribute(host, f"{base}/namespaces/{nsid}/device_path"),
                        enabled=attribute(host, f"{base}/namespaces/{nsid}/enable") == "1",
                    )
                    for nsid in namespaces
                ),
            )
        )
    return tuple(found)


def _runs_here(host: HostReader, program: str) -> bool:
    """In this network name space: the kernel asks for a handshake in that of the socket (net/handshake/netlink.c)."""
    processes = (name for name in names(host, "/proc") if re.fullmatch(r"\d+", name))
    found = [name for name in processes if attribute(host, f"/proc/{name}/comm") == program]
    return any(_network(host, name) in ("", _network(host, "self")) for name in found)


def _network(host: HostReader, process: str) -> str:
    """Its name space's name; '' where it may not be read."""
    try:
        return host.readlink(f"/proc/{process}/ns/net")
    except OSError:
        return ""
