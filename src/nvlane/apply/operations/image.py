"""Disk images: created under another name, given their own when they are whole, removed only while untouched."""

from __future__ import annotations

import secrets

from nvlane.apply.operations.found import FoundImage, FoundNothing, MadeImage
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, kept
from nvlane.model.errors import HostError, Refused
from nvlane.model.host import Host
from nvlane.plan.step import CreateImage, RemoveImage


class CreateImageOperation:
    def observe(self, host: Host, step: CreateImage) -> FoundImage:
        directory, _, name = step.path.rpartition("/")
        return FoundImage(exists=host.exists(step.path), growing=f"{directory}/.{name}.{secrets.token_hex(4)}")

    def check(self, host: Host, step: CreateImage, found: FoundImage) -> None:
        if found.exists:
            raise Refused(f"{step.path} is there already; nvlane never overwrites an image", remedy="plan again")
        parent = step.path.rpartition("/")[0] or "/"
        if not host.exists(parent):
            raise HostError(f"cannot create {step.path}: there is no directory {parent}", remedy=f"mkdir -p {parent}")

    def perform(self, host: Host, step: CreateImage, found: FoundImage, keep: Keep) -> None:
        try:
            if step.format == "raw":
                host.create_sparse(found.growing, step.size)
            else:
                # -u: the image below is not opened, for the machine that has it open holds a lock on it.
                below = ["-u", "-b", step.backing, "-F", step.backing_format] if step.backing else []
                host.command(["qemu-img", "create", "-q", "-f", step.format, *below, found.growing, str(step.size)])
            made = host.stat(found.growing)
            keep(MadeImage(inode=made.inode, size=made.size, mtime_ns=made.mtime_ns))
            host.link(found.growing, step.path)
            if host.exists(found.growing):
                host.unlink(found.growing)
        except OSError as error:
            raise HostError(f"cannot create {step.path}: {error.strerror}") from error

    def inverse(self, step: CreateImage, found: FoundImage, result: MadeImage | None) -> RemoveImage:
        if result is None:
            return RemoveImage(path=step.path, growing=found.growing, fill=step.fill)
        return RemoveImage(
            path=step.path,
            growing=found.growing,
            inode=result.inode,
            size=result.size,
            mtime_ns=result.mtime_ns,
            fill=step.fill,
        )


class RemoveImageReversal(Idempotent):
    def observe(self, host: Host, inverse: RemoveImage) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: RemoveImage, found: FoundNothing) -> Outcome:  # noqa: ARG002
        grew = host.exists(inverse.growing)
        if grew:
            host.unlink(inverse.growing)
        if not inverse.inode or not host.exists(inverse.path):
            return PUT_BACK if grew else already("it is not there")
        now = host.stat(inverse.path)
        if now.inode != inverse.inode:
            return kept(f"{inverse.path} is another file by now")
        if not inverse.fill and (now.size, now.mtime_ns) != (inverse.size, inverse.mtime_ns):
            return kept(f"{inverse.path} has been written to; it is yours")
        host.unlink(inverse.path)
        return PUT_BACK
