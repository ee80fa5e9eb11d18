"""NVMe over Fabrics as values: transports, the path from a Host to a Target, and who needs which kernel module."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: NVMe Base Specification 2.0, 4.5: at most 223 bytes. A comma would end it in the kernel's list of options.
NQN: Final = re.compile(r"nqn\.\d{4}-\d{2}\.[!-+\--~]{1,212}")
#: The form of an NQN that is made of a UUID (NVMe Base Specification 2.0, 4.5.1).
UUID_NQN: Final = "nqn.2014-08.org.nvmexpress:uuid:"
#: The port that IANA gave to NVMe over RDMA and TCP.
DEFAULT_PORT: Final = 4420


class Transport(StrEnum):
    """What carries the commands. LOOP needs no network: Host and Target are one kernel."""

    TCP = "tcp"
    RDMA = "rdma"
    FC = "fc"
    LOOP = "loop"


#: The kernel module of each side.
HOST_MODULES: Final = {
    Transport.TCP: "nvme-tcp",
    Transport.RDMA: "nvme-rdma",
    Transport.FC: "nvme-fc",
    Transport.LOOP: "nvme-loop",
}
TARGET_MODULES: Final = {
    Transport.TCP: "nvmet-tcp",
    Transport.RDMA: "nvmet-rdma",
    Transport.FC: "nvmet-fc",
    Transport.LOOP: "nvme-loop",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FabricPath:
    """One way from a Host to a port of a Target, in the words of the specification: traddr, trsvcid, host_traddr.

    An address is an IP address for tcp and rdma, 'nn-0x…:pn-0x…' (WWNN and WWPN) for fc, '' for loop.
    """

    transport: Transport
    address: str = ""
    service: str = ""
    host_address: str = ""

    def __str__(self) -> str:
        address = f"[{self.address}]" if ":" in self.address and self.service else self.address
        where = f"{address}:{self.service}" if self.service else address
        return f"{self.transport} {where}".strip()


def service_of(transport: Transport, port: int) -> str:
    """trsvcid: only tcp and rdma have ports."""
    return str(port) if transport in (Transport.TCP, Transport.RDMA) else ""


def host_id_of(host_nqn: str) -> str:
    """A host identifier that goes with a host NQN: a Target refuses one NQN with two identifiers."""
    text = host_nqn.removeprefix(UUID_NQN)
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, host_nqn))


def namespace_uuid(nqn: str, nsid: int) -> str:
    """The UUID of an exported namespace: the same after every start of its Target, for a Host that comes back drops a
    namespace of which the identifiers changed (drivers/nvme/host/core.c, nvme_validate_ns)."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{nqn}/{nsid}"))
