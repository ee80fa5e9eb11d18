"""Whose a socket or an image is: given to the user that libvirt runs QEMU as, and given back."""

from __future__ import annotations

from nvlane.apply.operations.found import FoundOwner
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, kept
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.plan.domain_step import DisownPath, OwnPath


def owner(host: HostReader, path: str) -> FoundOwner:
    try:
        found = host.stat(path)
    except FileNotFoundError:
        return FoundOwner(present=False)
    return FoundOwner(present=True, uid=found.uid, gid=found.gid)


class OwnPathOperation:
    def observe(self, host: Host, step: OwnPath) -> FoundOwner:
        return owner(host, step.path)

    def check(self, host: Host, step: OwnPath, found: FoundOwner) -> None:  # noqa: ARG002
        if not found.present:
            raise HostError(f"{step.path} is not there any more", remedy="plan again")

    def perform(self, host: Host, step: OwnPath, found: FoundOwner, keep: Keep) -> None:  # noqa: ARG002
        try:
            host.chown(step.path, step.uid, step.gid)
        except OSError as error:
            raise HostError(
                f"cannot give {step.path} to QEMU's user {step.uid}:{step.gid}: {error.strerror}",
                remedy="run as root, or let that user read and write it by other means (setfacl)",
            ) from error

    def inverse(self, step: OwnPath, found: FoundOwner, result: None) -> DisownPath | None:  # noqa: ARG002
        if (found.uid, found.gid) == (step.uid, step.gid):
            return None
        return DisownPath(path=step.path, uid=step.uid, gid=step.gid, old_uid=found.uid, old_gid=found.gid)


class DisownPathReversal(Idempotent):
    def observe(self, host: Host, inverse: DisownPath) -> FoundOwner:
        return owner(host, inverse.path)

    def perform(self, host: Host, inverse: DisownPath, found: FoundOwner) -> Outcome:
        if not found.present:
            return already("it is not there any more")
        if (found.uid, found.gid) == (inverse.old_uid, inverse.old_gid):
            return already("it has that owner")
        if (found.uid, found.gid) != (inverse.uid, inverse.gid):
            return kept(f"somebody else gave it to {found.uid}:{found.gid} meanwhile")
        host.chown(inverse.path, inverse.old_uid, inverse.old_gid)
        return PUT_BACK
