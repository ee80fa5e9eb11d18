"""What `nvlane fabrics export` would do: a Target made of the kernel's nvmet, node by node, or why not."""

from __future__ import annotations

import ipaddress
import re
import uuid
from dataclasses import dataclass
from typing import Final

from nvlane.facts.fabrics import CONFIGFS, NVMET
from nvlane.facts.locate import NotLocated, find_drive
from nvlane.facts.shape import Facts
from nvlane.model.fabrics import NQN, TARGET_MODULES, UUID_NQN, FabricPath, Transport, namespace_uuid
from nvlane.model.tls_psk import TARGET_KEYRING
from nvlane.plan import refuse
from nvlane.plan.fabrics_step import AddTlsKey, LinkConfigNode, MakeConfigNode, MountConfigfs
from nvlane.plan.plan import Note, Plan, Refusal
from nvlane.plan.step import CreateImage, LoadModule, Step

#: World wide names of a port, as the kernel writes them (include/linux/nvme-fc-driver.h, nvme-fc.h).
FC_ADDRESS: Final = re.compile(r"nn-0x[0-9a-f]{16}:pn-0x[0-9a-f]{16}")
#: File systems without O_DIRECT: nvmet then has to go through the page cache.
_NO_DIRECT: Final = frozenset({"tmpfs", "ramfs"})


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedExport:
    """What was asked for. Each of `files` (a raw file or block device) is one namespace; so is each namespace of
    `drive`, or the one that `namespace` names. `size` is for a file that is to be created."""

    name: str
    nqn: str
    paths: tuple[FabricPath, ...]
    files: tuple[str, ...] = ()
    size: int = 0
    drive: str = ""
    namespace: int = 0
    hosts: tuple[str, ...] = ()
    any_host: bool = False
    secret: str = ""
    controller_secret: str = ""
    tls: bool = False
    tls_key: str = ""


def default_nqn(hostname: str, name: str) -> str:
    """An NQN that stays the same for this name on this host."""
    return f"{UUID_NQN}{uuid.uuid5(uuid.NAMESPACE_DNS, f'{name}.{hostname}')}"


def make_export_plan(wanted: WantedExport, facts: Facts) -> Plan:
    """Everything that exporting this would do, or why not."""
    refusals = (*_refusals(wanted, facts), *_source_refusals(wanted, facts))
    if refusals:
        return Plan(machine=None, refusals=tuple(dict.fromkeys(refusals)))
    return Plan(machine=None, notes=_notes(wanted, facts), steps=_steps(wanted, facts))


def _refuse(code: str, reason: str, *, evidence: tuple[str, ...] = (), remedy: str = "") -> Refusal:
    return Refusal(code=code, lane=None, reason=reason, evidence=evidence, remedy=remedy)


def _refusals(wanted: WantedExport, facts: Facts) -> tuple[Refusal, ...]:
    reasons: list[Refusal] = []
    if (denied := refuse.not_root(None, facts, "exporting to other hosts")) is not None:
        reasons.append(denied)
    for module in _modules(wanted):
        if (missing := refuse.no_module(None, facts, module, "this export")) is not None:
            reasons.append(missing)
    reasons += [
        _refuse("nqn", f"'{nqn}' is no NQN", remedy="write it as nqn.2014-08.org.example:disk1, or leave it out")
        for nqn in (wanted.nqn, *wanted.hosts)
        if not NQN.fullmatch(nqn)
    ]
    if any(subsystem.nqn == wanted.nqn for subsystem in facts.fabrics.subsystems):
        reasons.append(
            _refuse(
                "nqn-exported",
                f"this host exports {wanted.nqn} already",
                evidence=(f"{NVMET}/subsystems/{wanted.nqn} is there",),
                remedy="nvlane fabrics list shows by what; take another NQN, or unexport that first",
            )
        )
    if not wanted.hosts and not wanted.any_host:
        reasons.append(
            _refuse(
                "no-hosts",
                "nobody would be allowed to connect",
                remedy="--allow HOSTNQN (there: cat /etc/nvme/hostnqn), or --allow-any on a network that you trust",
            )
        )
    if (wanted.secret or wanted.tls) and wanted.any_host:
        reasons.append(
            _refuse("secret-for-all", "a key belongs to a host, and any host is allowed", remedy="name it by --allow")
        )
    return (*reasons, *(reason for path in wanted.paths for reason in _address_refusals(path)), *_tls(wanted, facts))


def _tls(wanted: WantedExport, facts: Facts) -> tuple[Refusal, ...]:
    if not wanted.tls:
        return ()
    if wanted.paths[0].transport is not Transport.TCP:
        return (_refuse("no-tls", "only tcp has TLS", remedy="take tcp, or leave TLS out"),)
    if not facts.fabrics.tls_daemon:
        evidence = "no process tlshd in this network name space: nobody would do the handshakes"
        remedy = "modprobe nvme-keyring, then install and start tlshd (ktls-utils)"
    elif not facts.fabrics.tls_keyring:
        evidence = f"there is no keyring {TARGET_KEYRING}, and tlshd looks for it only when it starts"
        remedy = "modprobe nvme-keyring (a line in /etc/modules-load.d keeps it), then start tlshd anew"
    else:
        return ()
    words = f"{remedy}; or leave TLS out"
    return (_refuse("no-tls", "TLS cannot be had here", evidence=(evidence,), remedy=words),)


def _address_refusals(path: FabricPath) -> tuple[Refusal, ...]:
    match path.transport:
        case Transport.LOOP:
            return ()
        case Transport.FC:
            if FC_ADDRESS.fullmatch(path.address):
                return ()
            remedy = "write nn-0x…:pn-0x…, each with 16 digits (/sys/class/fc_host/*/node_name and port_name)"
        case Transport.TCP | Transport.RDMA:
            if is_ip(path.address):
                return ()
            remedy = "write an IP address of this host (ip address): the kernel resolves no names"
    words = f"'{path.address}' is no address for {path.transport}" if path.address else f"{path.transport} needs one"
    return (_refuse("address", words, remedy=remedy),)


def is_ip(address: str) -> bool:
    """An IP address, with a zone where it is a link-local one ('fe80::1%eth0')."""
    plain, percent, zone = address.partition("%")
    try:
        ipaddress.ip_address(plain)
    except ValueError:
        return False
    return not percent or re.fullmatch(r"[A-Za-z0-9._-]{1,15}", zone) is not None


def _source_refusals(wanted: WantedExport, facts: Facts) -> tuple[Refusal, ...]:
    if not wanted.files and not wanted.drive:
        return (_refuse("no-source", "there is nothing to export", remedy="name a --file, --device or --drive"),)
    reasons = [reason for file in wanted.files for reason in _file_refusals(file, wanted.size, facts)]
    if not wanted.drive:
        return tuple(reasons)
    found = find_drive(facts, wanted.drive)
    if isinstance(found, NotLocated):
        return (*reasons, _refuse("no-drive", found.reason, remedy=found.remedy))
    reasons += refuse.uses(None, f"the drive {found.function.address}", found.drive.uses)
    if not _namespaces(wanted, facts):
        have = ", ".join(str(ns.nsid) for ns in found.drive.namespaces) or "none that the kernel shows"
        reasons.append(
            _refuse(
                "no-namespace",
                f"{wanted.drive} has no namespace {wanted.namespace or 'here'}",
                evidence=(f"namespaces: {have}",),
                remedy="name one that it has; a drive on vfio-pci must come back to the kernel first",
            )
        )
    return tuple(reasons)


def _file_refusals(path: str, size: int, facts: Facts) -> tuple[Refusal, ...]:
    seen = facts.path(path)
    match seen.kind:
        case "block":
            return refuse.uses(None, path, seen.uses)
        case "file" if seen.format not in ("", "raw"):
            return (
                _refuse(
                    "file-format",
                    f"{path} is a {seen.format} image, and a Target exports raw files",
                    remedy=f"qemu-img convert -O raw {path} NEW",
                ),
            )
        case "file" if size and seen.size != size:
            return (_refuse("file-size", f"{path} is there with another size", remedy="leave --size out"),)
        case "file":
            return ()
        case "absent" if size and seen.parent_exists and seen.writable:
            return ()
    return (
        _refuse(
            "no-file",
            f"{path} is no file or block device to export ({seen.error or seen.kind})",
            remedy="name one that is there, or give a --size to create the file with",
        ),
    )


def _namespaces(wanted: WantedExport, facts: Facts) -> tuple[str, ...]:
    """The block devices of the drive."""
    found = find_drive(facts, wanted.drive)
    if isinstance(found, NotLocated) or not found.drive.controller:
        return ()
    names = (ns.name for ns in found.drive.namespaces if wanted.namespace in (0, ns.nsid))
    return tuple(f"/dev/{name}" for name in names)


def sources(wanted: WantedExport, facts: Facts) -> tuple[str, ...]:
    """What stands behind the namespaces 1, 2, …"""
    return (*wanted.files, *(_namespaces(wanted, facts) if wanted.drive else ()))


def _notes(wanted: WantedExport, facts: Facts) -> tuple[Note, ...]:
    found = find_drive(facts, wanted.drive) if wanted.drive else None
    contents = found.drive.contents if found is not None and not isinstance(found, NotLocated) else ()
    lines = [f"{content.device} holds {content.what}; whoever connects gets it as it is" for content in contents]
    if wanted.tls and not wanted.tls_key:
        lines.append(f"the key of each host has to stand in the keyring {TARGET_KEYRING}, unless a file is named")
    if wanted.any_host:
        lines.append("any host that reaches these addresses may read and write it")
    return tuple(Note(lane=None, text=line) for line in lines)


def _modules(wanted: WantedExport) -> tuple[str, ...]:
    return ("configfs", "nvmet", *dict.fromkeys(TARGET_MODULES[path.transport] for path in wanted.paths))


def _steps(wanted: WantedExport, facts: Facts) -> tuple[Step, ...]:
    """The port's link comes last: nobody can connect to half a subsystem, and the undo begins by closing the port."""
    subsystem = f"{NVMET}/subsystems/{wanted.nqn}"
    configfs, *modules = _modules(wanted)
    steps: list[Step] = [LoadModule(name=configfs), MountConfigfs(target=CONFIGFS)]
    steps += [LoadModule(name=name) for name in modules]
    steps += [
        CreateImage(path=file, format="raw", size=wanted.size)
        for file in wanted.files
        if facts.path(file).kind == "absent"
    ]
    steps.append(
        MakeConfigNode(
            path=subsystem,
            attributes=(
                ("attr_allow_any_host", "1" if wanted.any_host else "0"),
                ("attr_serial", namespace_uuid(wanted.nqn, 0).replace("-", "")[:20]),
            ),
        )
    )
    steps += [_namespace(subsystem, nsid, path, wanted, facts) for nsid, path in enumerate(sources(wanted, facts), 1)]
    for host in wanted.hosts:
        node = f"{NVMET}/hosts/{host}"
        keys = (("dhchap_key", wanted.secret), ("dhchap_ctrl_key", wanted.controller_secret))
        steps.append(MakeConfigNode(path=node, secrets=tuple((name, file) for name, file in keys if file)))
        steps.append(LinkConfigNode(path=f"{subsystem}/allowed_hosts/{host}", node=node))
        if wanted.tls_key:
            steps.append(AddTlsKey(keyring=TARGET_KEYRING, host_nqn=host, nqn=wanted.nqn, file=wanted.tls_key))
    taken = {port.number for port in facts.fabrics.ports}
    for path in wanted.paths:
        number = _port_number(path, facts, taken)
        taken.add(number)
        port = f"{NVMET}/ports/{number}"
        steps.append(MakeConfigNode(path=port, attributes=_port(path, tls=wanted.tls)))
        steps.append(LinkConfigNode(path=f"{port}/subsystems/{wanted.nqn}", node=subsystem))
    return tuple(steps)


def _namespace(subsystem: str, nsid: int, path: str, wanted: WantedExport, facts: Facts) -> MakeConfigNode:
    buffered = facts.path(path).filesystem in _NO_DIRECT
    return MakeConfigNode(
        path=f"{subsystem}/namespaces/{nsid}",
        attributes=(
            ("device_path", path),
            ("device_uuid", namespace_uuid(wanted.nqn, nsid)),
            *((("buffered_io", "1"),) if buffered else ()),
            ("enable", "1"),
        ),
    )


def _port_number(path: FabricPath, facts: Facts, taken: set[int]) -> int:
    """The port that has this address already (two subsystems may share one), or the next free number."""
    for port in facts.fabrics.ports:
        if (port.transport, port.address, port.service) == (str(path.transport), path.address, path.service):
            return port.number
    return next(number for number in range(1, len(taken) + 2) if number not in taken)


def _port(path: FabricPath, *, tls: bool) -> tuple[tuple[str, str], ...]:
    match path.transport:
        case Transport.LOOP:
            return (("addr_trtype", "loop"),)
        case Transport.FC:
            family = "fc"
        case Transport.TCP | Transport.RDMA:
            family = "ipv6" if ":" in path.address else "ipv4"
    return (
        ("addr_trtype", str(path.transport)),
        ("addr_adrfam", family),
        ("addr_traddr", path.address),
        *((("addr_trsvcid", path.service),) if path.service else ()),
        *((("addr_tsas", "tls1.3"), ("addr_treq", "required")) if tls else ()),
    )
