"""A name that a plan can know for a block device that it cannot: a namespace that appears only when it is connected.

The link stands under nvlane's own runtime directory, so that it needs no udev, and whoever opens it (QEMU, a target)
opens the namespace that was looked at. What the host read of it goes into the journal, for claims.
"""

from __future__ import annotations

from typing import Final

from nvlane.apply.operations.found import BoundNamespace, FoundNothing
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, kept
from nvlane.facts.drives import read_namespace
from nvlane.facts.fabrics import find_namespace, read_connections
from nvlane.facts.fingerprint import read_fingerprint
from nvlane.facts.shape import Namespace, UseKind
from nvlane.facts.usage import read_uses
from nvlane.model.errors import HostError, Refused
from nvlane.model.host import Host
from nvlane.plan.fabrics_step import BindNamespace, ReleaseNamespace

#: Seconds from the connection to its namespaces: the kernel scans them in the background (nvme_scan_work).
_SCAN_DEADLINE: Final = 30.0
#: Seconds after which an open handle is no look in passing of udev or blkid.
_PASSING_DEADLINE: Final = 1.5


class BindNamespaceOperation:
    def observe(self, host: Host, step: BindNamespace) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def check(self, host: Host, step: BindNamespace, found: FoundNothing) -> None:  # noqa: ARG002
        if host.exists(step.path):
            raise HostError(f"{step.path} is there already", remedy="nvlane restore removes what a crash left")

    def perform(self, host: Host, step: BindNamespace, found: FoundNothing, keep: Keep) -> None:  # noqa: ARG002
        name = self._wait(host, step)
        seen = read_namespace(host, name)
        if step.block_size and seen.block_size != step.block_size:
            raise HostError(
                f"namespace {step.nsid} of {step.nqn} has blocks of {seen.block_size} bytes, and the spec says "
                f"{step.block_size}",
                remedy=f"write block_size = {seen.block_size}",
            )
        self._unused(host, step, name)
        keep(_read(host, step.path, seen))
        host.symlink(f"/dev/{name}", step.path)

    def _wait(self, host: Host, step: BindNamespace) -> str:
        def there() -> bool:
            name = find_namespace(host, step.nqn, step.nsid)
            return bool(name) and host.exists(f"/dev/{name}") and read_namespace(host, name).size > 0

        if host.wait_until(there, deadline=_SCAN_DEADLINE):
            return find_namespace(host, step.nqn, step.nsid)
        have = sorted({name for seen in read_connections(host) if seen.nqn == step.nqn for name in seen.namespaces})
        shown = ", ".join(f"{read_namespace(host, name).nsid}" for name in have) or "none"
        raise HostError(f"{step.nqn} shows no namespace {step.nsid}", remedy=f"it shows: {shown}")

    def _unused(self, host: Host, step: BindNamespace, name: str) -> None:
        def uses() -> bool:
            return bool(read_uses(host, (name,)))

        if uses():
            host.wait_until(lambda: not uses(), deadline=_PASSING_DEADLINE)
        found = read_uses(host, (name,))
        if found or not host.claim_exclusively(f"/dev/{name}"):
            kind = found[0].kind if found else UseKind.EXCLUSIVE
            words = "; ".join(use.evidence for use in found) or "the kernel refuses an exclusive open (EBUSY)"
            raise Refused(
                f"namespace {step.nsid} of {step.nqn} is /dev/{name}, which is in use on this host ({kind}): {words}",
                remedy="end each of these uses, then run the same command again",
            )

    def inverse(self, step: BindNamespace, found: FoundNothing, result: BoundNamespace | None) -> ReleaseNamespace:  # noqa: ARG002
        return ReleaseNamespace(path=step.path)


def _read(host: Host, path: str, seen: Namespace) -> BoundNamespace:
    print_ = read_fingerprint(host, of=path, path=f"/dev/{seen.name}", size=seen.size)
    return BoundNamespace(
        path=path,
        device=f"/dev/{seen.name}",
        size=seen.size,
        block_size=seen.block_size,
        ranges=print_.ranges,
        sha256=print_.sha256,
    )


class ReleaseNamespaceReversal(Idempotent):
    def observe(self, host: Host, inverse: ReleaseNamespace) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: ReleaseNamespace, found: FoundNothing) -> Outcome:  # noqa: ARG002
        try:
            target = host.readlink(inverse.path)
        except FileNotFoundError:
            return already("it is gone")
        except OSError as error:
            return kept(f"{inverse.path} is no link any more: {error.strerror}")
        if not target.startswith("/dev/"):
            return kept(f"somebody else has made {inverse.path} a link to {target}")
        host.unlink(inverse.path)
        return PUT_BACK
