"""TLS keys of NVMe/TCP in the kernel's keyrings, where tlshd and the kernel take them from.

An identity names one key and no other (model/tls_psk.py), so one that is there already is as good.
"""

from __future__ import annotations

import errno

from nvlane.apply.operations.found import FoundNothing, FoundShared
from nvlane.apply.operations.key_file import read_tls_psk
from nvlane.apply.operations.module import Others
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already
from nvlane.apply.operations.shared import look_for, needed_by_another
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.model.tls_psk import KEY_TYPE, TlsPsk
from nvlane.plan.fabrics_step import AddTlsKey, RemoveTlsKey


class AddTlsKeyOperation:
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, step: AddTlsKey) -> FoundShared:
        psk = _read(host, step)
        there = host.find_key(step.keyring, KEY_TYPE, psk.identity) != 0
        name = _name(step.keyring, psk.identity)
        return FoundShared(name=name, missing=look_for(name, there, self._others).missing)

    def check(self, host: Host, step: AddTlsKey, found: FoundShared) -> None:
        if found.name != _name(step.keyring, _read(host, step).identity):
            raise HostError(f"the key in {step.file} has just changed", remedy="run the same command again")

    def perform(self, host: Host, step: AddTlsKey, found: FoundShared, keep: Keep) -> None:  # noqa: ARG002
        psk = _read(host, step)
        if host.find_key(step.keyring, KEY_TYPE, psk.identity):
            return
        try:
            host.add_key(step.keyring, KEY_TYPE, psk.identity, psk.key)
        except OSError as error:
            remedy = {
                errno.ENODEV: "boot a kernel with CONFIG_NVME_TCP_TLS (Linux 6.7), or leave TLS out",
                errno.ENOKEY: f"there is no keyring {step.keyring}: modprobe nvme-keyring",
            }.get(error.errno or 0, "see /proc/key-users, and keyctl show")
            raise HostError(f"cannot {step.describe()}: {error.strerror}", remedy=remedy) from error

    def inverse(self, step: AddTlsKey, found: FoundShared, result: None) -> RemoveTlsKey | None:  # noqa: ARG002
        identity = found.name.removeprefix(_name(step.keyring, ""))
        return RemoveTlsKey(keyring=step.keyring, identity=identity) if found.missing else None


def _name(keyring: str, identity: str) -> str:
    return f"key {keyring} {identity}"


def _read(host: HostReader, step: AddTlsKey) -> TlsPsk:
    return read_tls_psk(host, step.file, step.host_nqn, step.nqn)


class RemoveTlsKeyReversal(Idempotent):
    def __init__(self, others: Others) -> None:
        self._others = others

    def observe(self, host: Host, inverse: RemoveTlsKey) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: RemoveTlsKey, found: FoundNothing) -> Outcome:  # noqa: ARG002
        if (still := needed_by_another(_name(inverse.keyring, inverse.identity), self._others)) is not None:
            return still
        number = host.find_key(inverse.keyring, KEY_TYPE, inverse.identity)
        if not number:
            return already("it is gone")
        host.unlink_key(inverse.keyring, number)
        return PUT_BACK
