"""Reading one attribute of sysfs, procfs or configfs, where an attribute that is not there is an answer too."""

from __future__ import annotations

import errno
from typing import Final

from nvlane.model.host import HostReader

#: Errors that mean "no answer" and no fault of the host: the attribute does not exist in this kernel (ENOENT,
#: ENOTDIR), the device went away between the listing and the read (ENODEV, ENXIO, ESRCH), the attribute has no value
#: in the device's present state (EINVAL, EIO, EOPNOTSUPP, as drivers return them), or this user may not see it
#: (EACCES, EPERM).
NO_ANSWER: Final = frozenset(
    {
        errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ENXIO, errno.ESRCH, errno.EINVAL, errno.EIO,
        errno.EOPNOTSUPP, errno.EACCES, errno.EPERM,
    }
)  # fmt: skip


def attribute(host: HostReader, path: str, default: str = "") -> str:
    """The text of an attribute without the blanks around it, or `default` when it gives no answer."""
    try:
        return host.read_text(path).strip()
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        return default


def number(host: HostReader, path: str, default: int = 0) -> int:
    """A number ('123', '0x1f') from an attribute; `default` when it gives no answer or none that is a number."""
    text = attribute(host, path)
    try:
        return int(text, 0)
    except ValueError:
        return default


def names(host: HostReader, path: str) -> list[str]:
    """The names in a directory, sorted; none when there is no such directory (or not for this user)."""
    try:
        return host.listdir(path)
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        return []


def link_name(host: HostReader, path: str) -> str:
    """The last part of what a symbolic link points to ('vfio-pci' for a driver link), '' without a link."""
    try:
        return host.readlink(path).rstrip("/").rsplit("/", 1)[-1]
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        return ""


def device_number(text: str) -> tuple[int, int] | None:
    """'259:3' to (259, 3); None for anything else."""
    major, colon, minor = text.strip().partition(":")
    return (int(major), int(minor)) if colon and major.isdigit() and minor.isdigit() else None
