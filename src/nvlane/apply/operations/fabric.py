"""Connections over a fabric: made through /dev/nvme-fabrics, found by NQN and path, never by number.

The device itself is spoken to and not nvme-cli, since a key in an argument is there for every user to read.
"""

from __future__ import annotations

import errno
import json
import re
from typing import Final

from nvlane.apply.operations.found import FoundShared
from nvlane.apply.operations.key_file import read_secret, read_tls_psk
from nvlane.apply.operations.module import Others
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed
from nvlane.apply.operations.shared import look_for, needed_by_another
from nvlane.facts.fabrics import DEVICE, read_connections
from nvlane.facts.shape import FabricConnection
from nvlane.facts.usage import read_uses
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.fabrics import FabricPath, Transport
from nvlane.model.host import Host, HostReader
from nvlane.model.tls_psk import HOST_KEYRING, KEY_TYPE
from nvlane.plan.fabrics_step import ConnectFabric, DisconnectFabric

#: Seconds until the kernel has taken a controller away: it waits for what is in flight.
_GONE_DEADLINE: Final = 60.0
#: What the kernel logs on the Host when the Target refuses (drivers/nvme/host/fabrics.c, nvmf_log_connect_error).
_NOT_ALLOWED: Final = ("is not allowed, hostnqn",)
_NO_SUBSYSTEM: Final = ("subsysnqn",)
_NO_KEY: Final = "qid 0: no key"
_HANDSHAKE: Final = "TLS handshake"
_NOT_THE_TARGET: Final = "controller authentication failed"
_AUTHENTICATION: Final = ("uthentication", "DH-HMAC-CHAP", "dhchap")


def find_connection(host: HostReader, nqn: str, path: FabricPath, host_nqn: str) -> FabricConnection | None:
    """The controller that came by this path. A kernel without the attribute hostnqn (before 5.6) has one host NQN."""
    for seen in read_connections(host):
        same_host = seen.host_nqn in ("", host_nqn)
        here = (seen.nqn, seen.transport, seen.address, seen.service)
        wanted = (nqn, str(path.transport), path.address, path.service)
        if same_host and here == wanted and path.host_address in ("", seen.host_address):
            return seen
    return None


def _name(nqn: str, path: FabricPath, host_nqn: str) -> str:
    return f"connection {host_nqn} {nqn} {path.transport} {path.address} {path.service} {path.host_address}"


class ConnectFabricOperation:
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, step: ConnectFabric) -> FoundShared:
        there = find_connection(host, step.nqn, step.path, step.host_nqn) is not None
        return look_for(_name(step.nqn, step.path, step.host_nqn), there, self._others)

    def check(self, host: Host, step: ConnectFabric, found: FoundShared) -> None:  # noqa: ARG002
        for file in (step.secret, step.controller_secret):
            if file:
                read_secret(host, file)

    def perform(self, host: Host, step: ConnectFabric, found: FoundShared, keep: Keep) -> None:  # noqa: ARG002
        if find_connection(host, step.nqn, step.path, step.host_nqn) is not None:
            return
        before = _kernel_log(host)
        try:
            host.converse(DEVICE, ",".join(_options(host, step)))
        except OSError as error:
            # Of its Host side: where the Target is this host too, nvmet's lines stand between.
            said = tuple(
                line for line in _kernel_log(host)[len(before) :] if re.search("nvme nvme|unknown param", line)
            )
            raise _explained(host, step, error, said) from error

    def inverse(self, step: ConnectFabric, found: FoundShared, result: None) -> DisconnectFabric | None:  # noqa: ARG002
        if not found.missing:
            return None
        return DisconnectFabric(nqn=step.nqn, path=step.path, host_nqn=step.host_nqn)


def _options(host: Host, step: ConnectFabric) -> list[str]:
    """In the words of the kernel (drivers/nvme/host/fabrics.c, opt_tokens)."""
    path = step.path
    words = [
        f"nqn={step.nqn}",
        f"transport={path.transport}",
        f"hostnqn={step.host_nqn}",
        f"hostid={step.host_id}",
        *([f"traddr={path.address}"] if path.address else []),
        *([f"trsvcid={path.service}"] if path.service else []),
        *([f"host_traddr={path.host_address}"] if path.host_address else []),
        f"ctrl_loss_tmo={step.controller_loss}",
        f"reconnect_delay={step.reconnect_delay}",
        *([f"fast_io_fail_tmo={step.fast_io_fail}"] if step.fast_io_fail >= 0 else []),
        *([f"nr_io_queues={step.queues}"] if step.queues else []),
        *(["tls"] if step.tls else []),
    ]
    if step.secret:
        words.append(f"dhchap_secret={read_secret(host, step.secret)}")
    if step.controller_secret:
        words.append(f"dhchap_ctrl_secret={read_secret(host, step.controller_secret)}")
    if step.tls_key:
        psk = read_tls_psk(host, step.tls_key, step.host_nqn, step.nqn)
        words.append(f"tls_key={host.find_key(HOST_KEYRING, KEY_TYPE, psk.identity)}")
    return words


def _kernel_log(host: HostReader) -> list[str]:
    try:
        return host.query(["dmesg"]).stdout.splitlines()
    except HostError:
        return []  # no such program, or not for this user: the errno has to do


def _explained(host: Host, step: ConnectFabric, error: OSError, said: tuple[str, ...]) -> HostError:
    """The cause of a refused connection, as far as errno, the kernel's log and the Target's discovery tell it."""
    text = "\n".join(said)
    words = "".join(f"\n  | {line}" for line in said[-6:])
    reason, remedy = _cause(host, step, error, text)
    return HostError(f"cannot {step.describe()}: {reason}{words}", remedy=remedy)


def _cause(host: Host, step: ConnectFabric, error: OSError, text: str) -> tuple[str, str]:
    path = step.path
    if any(word in text for word in _NOT_ALLOWED):
        return (
            f"the Target does not allow the host {step.host_nqn}",
            f"there: nvlane fabrics export … --allow {step.host_nqn}; or write the host_nqn that it knows",
        )
    if _NO_KEY in text:
        return "the Target wants a key of this host, and none is given", "secret names the file with the key"
    if _NOT_THE_TARGET in text:
        return (
            "the Target has not the key of controller_secret: it may not be the one that is meant",
            f"see who answers at {path}, and that its --controller-secret is the same",
        )
    if any(word in text for word in _AUTHENTICATION) or error.errno == errno.EKEYREJECTED:
        return (
            "the authentication failed",
            "both sides need the same key for this host (secret; controller_secret where the Target has one too)",
        )
    if any(word in text for word in _NO_SUBSYSTEM):
        return f"the Target has no subsystem {step.nqn} for this host", _offered(host, path, step)
    if step.tls and _HANDSHAKE in text:
        return (
            "the TLS handshake failed",
            f"the Target has to want TLS, to have the same key for {step.host_nqn}, and a tlshd that runs",
        )
    # nvmet closes what is no handshake at a port that wants TLS, before it says anything.
    if not step.tls and error.errno == errno.ECONNRESET and path.transport is Transport.TCP:
        return (
            "the Target ended the connection without a word, as one does that wants TLS",
            "say tls, and tls_key with the key that it was exported with",
        )
    # Over RDMA the connection manager rejects a port that nobody serves (IB_CM_REJ_INVALID_SERVICE_ID).
    rejected = error.errno == errno.ECONNRESET and path.transport is Transport.RDMA
    if rejected or error.errno == errno.ECONNREFUSED:
        return f"nothing listens at {path}", "export it there first (nvlane fabrics export), and see its port"
    match error.errno:
        case errno.ENOKEY if step.tls:
            return (
                "the keyring .nvme has no TLS key for this host and subsystem",
                "tls_key names the file with the one that the Target has (nvme gen-tls-key makes one for both)",
            )
        case errno.EHOSTUNREACH | errno.ENETUNREACH:
            return f"there is no route to {path.address}", f"ip route get {path.address} shows where it ends"
        case errno.ETIMEDOUT:
            return f"{path.address} does not answer", "see its address, and the firewall between the two"
        case errno.EADDRNOTAVAIL:
            return "no device here reaches that address", "rdma link (rdma), /sys/class/fc_host (fc) show what is here"
        case errno.EINVAL if "unknown parameter" in text or "Invalid" in text:
            return "this kernel does not take one of the options", "see its words above, and leave that out"
        case errno.ENOENT if not host.exists(DEVICE):
            return f"there is no {DEVICE}", "modprobe nvme-fabrics, and see that /dev is devtmpfs"
    return str(error.strerror), "see whether the Target is up: nvlane fabrics discover"


def _offered(host: Host, path: FabricPath, step: ConnectFabric) -> str:
    """What the Target offers to this host, for the remedy."""
    try:
        offered = [entry["subnqn"] for entry in discover(host, path, step.host_nqn, step.host_id)]
    except NvlaneError as error:
        return f"nvlane fabrics discover would show what it offers, but: {error.message}"
    others = [nqn for nqn in offered if not nqn.endswith(":discovery") and "discovery" not in nqn]
    return f"it offers: {', '.join(others)}" if others else f"it offers nothing to {step.host_nqn}: see its --allow"


def discover(host: HostReader, path: FabricPath, host_nqn: str, host_id: str) -> list[dict[str, str]]:
    """The discovery log page of a Target, as nvme-cli 2 gives it in JSON. Raises HostError."""
    argv = ["nvme", "discover", "-o", "json", "-t", str(path.transport), "-q", host_nqn, "-I", host_id]
    argv += ["-a", path.address] if path.address else []
    argv += ["-s", path.service] if path.service else []
    argv += ["-w", path.host_address] if path.host_address else []
    output = host.query(argv, timeout=30.0)
    words = (output.stderr.strip() or output.stdout.strip()).splitlines()
    if output.status != 0:
        raise HostError(
            f"no discovery at {path}: {words[-1] if words else f'nvme-cli ended with {output.status}'}",
            remedy="see the address and port, and whether the Target exports anything",
        )
    try:
        records = json.loads(output.stdout)["records"]
        return [{str(key): str(value) for key, value in record.items()} for record in records]
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(
            f"nvme-cli's answer is not understood: {error!r}", remedy="nvme-cli 2.0 or newer is needed (nvme version)"
        ) from error


class DisconnectFabricReversal(Idempotent):
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, inverse: DisconnectFabric) -> FoundShared:
        there = find_connection(host, inverse.nqn, inverse.path, inverse.host_nqn) is not None
        return FoundShared(name=_name(inverse.nqn, inverse.path, inverse.host_nqn), missing=not there)

    def perform(self, host: Host, inverse: DisconnectFabric, found: FoundShared) -> Outcome:
        if (still := needed_by_another(found.name, self._others)) is not None:
            return still
        seen = find_connection(host, inverse.nqn, inverse.path, inverse.host_nqn)
        if seen is None:
            return already("it is not connected")
        last = not [c for c in read_connections(host) if c.nqn == inverse.nqn and c.controller != seen.controller]
        uses = read_uses(host, seen.namespaces) if last and seen.namespaces else ()
        if uses:
            return failed(
                f"{inverse.nqn} is in use: " + "; ".join(f"{use.device}: {use.evidence}" for use in uses),
                remedy="end each of these uses, then run the same command again",
            )
        host.write_text(f"/sys/class/nvme/{seen.controller}/delete_controller", "1")
        if host.wait_until(lambda: not host.exists(f"/sys/class/nvme/{seen.controller}"), deadline=_GONE_DEADLINE):
            return PUT_BACK
        return failed(
            f"{seen.controller} did not go within {_GONE_DEADLINE:g} s", remedy="nvme list-subsys; then nvlane restore"
        )
