"""What the user that QEMU runs as can reach: a socket or an image is of no use behind a directory closed to it."""

from __future__ import annotations

from collections.abc import Iterable

from nvlane.model.host import HostReader
from nvlane.plan.plan import Refusal

_SEARCH = 0o1


def unreachable(host: HostReader, paths: Iterable[str], owner: tuple[int, int] | None) -> tuple[Refusal, ...]:
    """A refusal for each path with a directory on its way that `owner` may not pass. Only directories that are there
    already count: those that nvlane makes are open. Supplementary groups are not known, and not guessed."""
    if owner is None or owner[0] == 0:
        return ()
    closed = {path: directory for path in paths if (directory := _closed(host, path, owner))}
    return tuple(
        Refusal(
            code="path-closed",
            lane=None,
            reason=f"QEMU runs as user {owner[0]}, who may not pass {directory} on the way to {path}",
            evidence=(f"stat: {directory} has mode {host.stat(directory).mode:o}",),
            remedy=f"chmod o+x {directory}, or keep it under /var/lib/libvirt/images",
        )
        for path, directory in closed.items()
    )


def _closed(host: HostReader, path: str, owner: tuple[int, int]) -> str:
    """The first directory above `path` that may not be passed; '' when all may."""
    parts = [part for part in path.split("/") if part][:-1]
    for depth in range(1, len(parts) + 1):
        directory = "/" + "/".join(parts[:depth])
        try:
            found = host.stat(directory)
        except FileNotFoundError:
            return ""
        shift = 6 if found.uid == owner[0] else 3 if found.gid == owner[1] else 0
        if not found.mode >> shift & _SEARCH:
            return directory
    return ""
