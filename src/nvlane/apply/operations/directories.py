"""Directories: made with their missing parents; removed as far as nvlane made them and nobody put anything there."""

from __future__ import annotations

import errno

from nvlane.apply.operations.found import FoundNothing, FoundPaths
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, kept
from nvlane.model.errors import HostError
from nvlane.model.host import Host, HostReader
from nvlane.plan.step import MakeDirectory, RemoveDirectory


def missing_directories(host: HostReader, path: str) -> tuple[str, ...]:
    """`path` and its parents as far as they are not there, outermost first."""
    missing: list[str] = []
    while path not in ("", "/") and not host.exists(path):
        missing.append(path)
        path = path.rstrip("/").rpartition("/")[0]
    return tuple(reversed(missing))


def make_directories(host: Host, missing: tuple[str, ...], *, mode: int = 0o700) -> None:
    """Make what `missing_directories` found. One that somebody else made in between is as good."""
    for path in missing:
        try:
            host.mkdir(path, mode=mode)
        except FileExistsError:
            continue
        except OSError as error:
            raise HostError(f"cannot make the directory {path}: {error.strerror}") from error


def remove_directories(host: Host, made: tuple[str, ...]) -> Outcome:
    """Remove directories (outermost first in `made`) that are empty; one that is not is kept, with its parents."""
    removed = False
    for path in reversed(made):
        try:
            host.rmdir(path)
            removed = True
        except FileNotFoundError:
            continue
        except OSError as error:
            # EBUSY: something is mounted on it. EEXIST is what some file systems say for ENOTEMPTY (rmdir(2)).
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EBUSY):
                raise HostError(f"cannot remove the directory {path}: {error.strerror}") from error
            return kept(f"{path} is not empty ({_names(host, path)})")
    return PUT_BACK if removed else already("the directory is gone")


def _names(host: HostReader, path: str) -> str:
    try:
        names = host.listdir(path)
    except OSError as error:
        return str(error.strerror)
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "something is mounted on it"


class MakeDirectoryOperation:
    def observe(self, host: Host, step: MakeDirectory) -> FoundPaths:
        return FoundPaths(missing=missing_directories(host, step.path))

    def check(self, host: Host, step: MakeDirectory, found: FoundPaths) -> None:
        if not found.missing and host.stat(step.path).kind != "directory":
            raise HostError(f"{step.path} is there and is no directory", remedy="move it away")

    def perform(self, host: Host, step: MakeDirectory, found: FoundPaths, keep: Keep) -> None:  # noqa: ARG002
        make_directories(host, found.missing, mode=step.mode)

    def inverse(self, step: MakeDirectory, found: FoundPaths, result: None) -> RemoveDirectory | None:  # noqa: ARG002
        return RemoveDirectory(path=step.path, made=found.missing) if found.missing else None


class RemoveDirectoryReversal(Idempotent):
    def observe(self, host: Host, inverse: RemoveDirectory) -> FoundNothing:  # noqa: ARG002
        return FoundNothing()

    def perform(self, host: Host, inverse: RemoveDirectory, found: FoundNothing) -> Outcome:  # noqa: ARG002
        return remove_directories(host, inverse.made)
