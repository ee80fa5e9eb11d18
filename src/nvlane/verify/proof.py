"""The host's half of the write proof: after `down`, the bytes are read where the guest wrote them.

A drive is found by its serial, for it may have come back under another name. Reading goes past the page cache.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Final

from nvlane.facts.fabrics import exported_path, find_namespace
from nvlane.facts.locate import Located, find_drive
from nvlane.facts.shape import Facts
from nvlane.model.claim import Evidence
from nvlane.model.errors import HostError
from nvlane.model.host import HostReader
from nvlane.verify.look import Proof

#: What the place of a proof begins with that is a namespace of a fabric ('fabrics:NSID:NQN').
FABRICS_PLACE: Final = "fabrics:"


def check_proofs(proofs: tuple[Proof, ...], host: HostReader, facts: Facts) -> tuple[Evidence, ...]:
    """Evidence for each proof. `facts` must be taken after the undo; a proof on a fabric is read before it, and, when
    this host is the Target too, also there."""
    found = []
    for proof in proofs:
        found.append(_check(proof, host, facts))
        behind = _exported(proof, host)
        if behind:
            there = _check(dataclasses.replace(proof, host_path=behind), host, facts)
            found.append(dataclasses.replace(there, claim=f"the Target reads on {behind} what the guest wrote"))
    return tuple(found)


def _exported(proof: Proof, host: HostReader) -> str:
    """What the Target, when it is this very host, has behind a namespace: a raw file or block device."""
    if not proof.host_path.startswith(FABRICS_PLACE):
        return ""
    nsid, _, nqn = proof.host_path.removeprefix(FABRICS_PLACE).partition(":")
    return exported_path(host, nqn, int(nsid))


def _check(proof: Proof, host: HostReader, facts: Facts) -> Evidence:
    try:
        path = _where(proof, host, facts)
        found = hashlib.sha256(_read(path, proof, host, facts)).hexdigest()
        name = path
    except (OSError, HostError) as error:
        name, found = proof.host_path, f"not readable: {error}"
    return Evidence(
        lane=proof.lane,
        claim=f"the host reads on {name} what the guest wrote",
        expected=proof.sha256,
        found=found,
        ok=found == proof.sha256,
    )


def _where(proof: Proof, host: HostReader, facts: Facts) -> str:
    if proof.host_path.startswith(FABRICS_PLACE):
        return _on_fabric(proof.host_path.removeprefix(FABRICS_PLACE), host)
    if not proof.host_path.startswith("serial:"):
        return proof.host_path
    serial, _, nsid = proof.host_path.rpartition(":")
    located = find_drive(facts, serial)
    if not isinstance(located, Located):
        raise HostError(located.reason, remedy=located.remedy)
    for namespace in located.drive.namespaces:
        if namespace.nsid == int(nsid):
            return f"/dev/{namespace.name}"
    raise HostError(f"{located.function.address} shows no namespace {nsid} on the host")


def _on_fabric(place: str, host: HostReader) -> str:
    nsid, _, nqn = place.partition(":")
    name = find_namespace(host, nqn, int(nsid))
    if not name:
        raise HostError(f"this host is not connected to namespace {nsid} of {nqn}")
    return f"/dev/{name}"


def _read(path: str, proof: Proof, host: HostReader, facts: Facts) -> bytes:
    seen = facts.path(path)
    if seen.kind == "file" and seen.format not in ("", "raw"):
        return _read_image(path, proof, host)
    return host.read_bytes(path, offset=proof.offset, length=proof.length)


def _read_image(path: str, proof: Proof, host: HostReader) -> bytes:
    # qemu-io prints a hex dump; 16 bytes a line, the address first and the text last.
    output = host.query(["qemu-io", "-r", "-c", f"read -v {proof.offset} {proof.length}", path], timeout=60.0)
    if output.status != 0:
        raise HostError(f"qemu-io cannot read {path}: {output.stderr.strip()}")
    dump = (line.split(":", 1)[1][:49] for line in output.stdout.splitlines() if line[8:9] == ":")
    return bytes.fromhex(" ".join(dump))
