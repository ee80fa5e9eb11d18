"""A Host's connection to a subsystem: what refuses it, and its steps. For the fabrics lane and `fabrics connect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nvlane.facts.shape import Facts
from nvlane.model.fabrics import HOST_MODULES, FabricPath, Transport, host_id_of
from nvlane.model.tls_psk import HOST_KEYRING
from nvlane.plan import refuse
from nvlane.plan.export import FC_ADDRESS, is_ip
from nvlane.plan.fabrics_step import AddTlsKey, ConnectFabric
from nvlane.plan.plan import Refusal
from nvlane.plan.step import LoadModule, Step

#: A guest's disk must not vanish: the kernel removes a namespace for good when it gives a controller up, and nothing
#: brings it back into a machine that runs. So it tries for ever.
FOR_EVER: Final = -1
#: Seconds between two tries. The kernel's ten are many for a guest that waits for its disk.
RECONNECT_DELAY: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedConnection:
    """What was asked for. `paths` lead to one subsystem; '' for the host NQN is that of /etc/nvme/hostnqn."""

    nqn: str
    paths: tuple[FabricPath, ...]
    host_nqn: str = ""
    controller_loss: int = FOR_EVER
    reconnect_delay: int = RECONNECT_DELAY
    fast_io_fail: int = FOR_EVER
    queues: int = 0
    secret: str = ""
    controller_secret: str = ""
    tls: bool = False
    tls_key: str = ""


def connection_refusals(wanted: WantedConnection, facts: Facts, lane: int | None) -> tuple[Refusal, ...]:
    """Why it cannot be made, as far as this host knows."""
    reasons: list[Refusal | None] = [refuse.not_root(lane, facts, "connecting to a Target")]
    modules = dict.fromkeys(HOST_MODULES[path.transport] for path in wanted.paths)
    reasons += [refuse.no_module(lane, facts, module, "this transport") for module in modules]
    if not (wanted.host_nqn or facts.fabrics.host_nqn):
        reasons.append(
            Refusal(
                code="no-host-nqn",
                lane=lane,
                reason="this host has no NQN, so no Target can know it",
                evidence=("/etc/nvme/hostnqn is not there",),
                remedy="nvme gen-hostnqn > /etc/nvme/hostnqn, or write host_nqn",
            )
        )
    reasons += [_address_refusal(path, lane) for path in wanted.paths]
    reasons += [_option_refusal(wanted, facts, lane), _tls_refusal(wanted, facts, lane)]
    return tuple(reason for reason in reasons if reason is not None)


def _address_refusal(path: FabricPath, lane: int | None) -> Refusal | None:
    match path.transport:
        case Transport.LOOP:
            return None
        case Transport.FC:
            good = bool(FC_ADDRESS.fullmatch(path.address) and FC_ADDRESS.fullmatch(path.host_address))
            remedy = "write both as nn-0x…:pn-0x…, each with 16 digits (/sys/class/fc_host/*/node_name and port_name)"
        case Transport.TCP | Transport.RDMA:
            good = is_ip(path.address) and (not path.host_address or is_ip(path.host_address))
            remedy = "write an IP address: the kernel resolves no names (getent ahosts NAME does)"
    if good:
        return None
    return Refusal(
        code="fabric-address",
        lane=lane,
        reason=f"'{path.address}' is no address for {path.transport}"
        if path.transport is not Transport.FC and not path.host_address
        else f"'{path.address}' and '{path.host_address}' are no two addresses for {path.transport}",
        remedy=remedy,
    )


def _option_refusal(wanted: WantedConnection, facts: Facts, lane: int | None) -> Refusal | None:
    """What is not loaded cannot be asked: then the connection itself will tell."""
    options = facts.fabrics.options
    if not options or not wanted.secret or "dhchap_secret" in options:
        return None
    return Refusal(
        code="no-authentication",
        lane=lane,
        reason=f"the kernel {facts.kernel} has no in-band authentication on its Host side",
        evidence=("/dev/nvme-fabrics takes no dhchap_secret",),
        remedy="boot a kernel with CONFIG_NVME_HOST_AUTH (Linux 6.0), or leave the key out",
    )


def _tls_refusal(wanted: WantedConnection, facts: Facts, lane: int | None) -> Refusal | None:
    if not wanted.tls:
        return None
    fabrics = facts.fabrics
    if fabrics.options and "tls" not in fabrics.options:
        evidence, remedy = "/dev/nvme-fabrics takes no tls", "boot a kernel with CONFIG_NVME_TCP_TLS (Linux 6.7)"
    elif not fabrics.tls_daemon:
        evidence = "no process tlshd in this network name space: nobody would do the handshake"
        remedy = "modprobe nvme-keyring, then install and start tlshd (ktls-utils)"
    elif any(path.transport is not Transport.TCP for path in wanted.paths):
        evidence, remedy = f"the transport is {wanted.paths[0].transport}", "only tcp has TLS"
    else:
        return None
    return Refusal(
        code="no-tls",
        lane=lane,
        reason="TLS cannot be had for this connection",
        evidence=(evidence,),
        remedy=f"{remedy}; or leave tls out",
    )


def connection_steps(wanted: WantedConnection, facts: Facts) -> tuple[Step, ...]:
    """The modules, then each path. The kernel joins paths to one subsystem by itself (native multipath)."""
    host_nqn = wanted.host_nqn or facts.fabrics.host_nqn
    own = host_nqn == facts.fabrics.host_nqn and facts.fabrics.host_id
    modules = dict.fromkeys(HOST_MODULES[path.transport] for path in wanted.paths)
    key = AddTlsKey(keyring=HOST_KEYRING, host_nqn=host_nqn, nqn=wanted.nqn, file=wanted.tls_key)
    return (
        *(LoadModule(name=module) for module in modules),
        *((key,) if wanted.tls_key else ()),
        *(
            ConnectFabric(
                nqn=wanted.nqn,
                path=path,
                host_nqn=host_nqn,
                host_id=facts.fabrics.host_id if own else host_id_of(host_nqn),
                controller_loss=wanted.controller_loss,
                reconnect_delay=wanted.reconnect_delay,
                fast_io_fail=wanted.fast_io_fail,
                queues=wanted.queues,
                secret=wanted.secret,
                controller_secret=wanted.controller_secret,
                tls=wanted.tls,
                tls_key=wanted.tls_key,
            )
            for path in wanted.paths
        ),
    )
