"""What stands at the paths that a spec names: images, block devices, DAX devices, directories."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from nvlane.facts.attribute import NO_ANSWER, number
from nvlane.facts.mounts import MountEntry, mount_of
from nvlane.facts.shape import PathFacts, Use, UseKind
from nvlane.facts.usage import Survey, read_uses
from nvlane.model.errors import HostError
from nvlane.model.host import FileStat, HostReader


def read_paths(host: HostReader, paths: Sequence[str], survey: Survey) -> tuple[PathFacts, ...]:
    """Facts of each path, in the order given, each once."""
    return tuple(read_path(host, path, survey) for path in dict.fromkeys(paths))


def read_path(host: HostReader, path: str, survey: Survey) -> PathFacts:
    """Facts of one absolute path; `error` says what could not be seen and why."""
    try:
        found = host.stat(path)
    except FileNotFoundError:
        return _absent(host, path, survey)
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        return PathFacts(path=path, kind="unread", writable=False, error=f"{path}: {error.strerror}")
    mount = mount_of(host.realpath(path), survey.mounts.own)
    if found.kind == "block":
        return _block(host, path, found, survey)
    if found.kind == "char":
        return _char(host, path, found, survey)
    facts = PathFacts(
        path=path,
        kind=found.kind,
        size=found.size,
        filesystem=mount.fstype if mount else "",
        dax=_is_dax(mount),
        free_space=host.free_space(path),
        writable=host.writable(path),
        uses=_uses_of_file(path, found, survey) if found.kind == "file" else (),
    )
    return _with_image(host, facts) if found.kind == "file" else facts


def _uses_of_file(path: str, found: FileStat, survey: Survey) -> tuple[Use, ...]:
    return tuple(
        Use(kind=UseKind.OPEN, device=path, evidence=handle.evidence)
        for handle in survey.handles
        if handle.kind == "file" and (handle.number, handle.inode) == (found.device, found.inode)
    )


def _absent(host: HostReader, path: str, survey: Survey) -> PathFacts:
    parent = path.rstrip("/").rsplit("/", 1)[0] or "/"
    try:
        is_directory = host.stat(parent).kind == "directory"
    except OSError as error:
        if error.errno not in NO_ANSWER:
            raise
        is_directory = False
    if not is_directory:
        return PathFacts(path=path, kind="absent", parent_exists=False, writable=False)
    mount = mount_of(host.realpath(parent), survey.mounts.own)
    return PathFacts(
        path=path,
        kind="absent",
        filesystem=mount.fstype if mount else "",
        dax=_is_dax(mount),
        free_space=host.free_space(parent),
        writable=host.writable(parent),
    )


def _block(host: HostReader, path: str, found: FileStat, survey: Survey) -> PathFacts:
    """A block device is raw by definition: its format is never guessed from its content, which a guest may write."""
    name = survey.blocks.by_number.get(found.device, "")
    if not name:
        return PathFacts(path=path, kind="block", error=f"{path} is a node of no device (number {found.device})")
    size = number(host, f"/sys/class/block/{name}/size") * 512
    return PathFacts(
        path=path,
        kind="block",
        size=size,
        format="raw",
        virtual_size=size,
        writable=host.writable(path) and number(host, f"/sys/class/block/{name}/ro") == 0,
        uses=read_uses(host, (name,), survey),
    )


def _char(host: HostReader, path: str, found: FileStat, survey: Survey) -> PathFacts:
    """A DAX device is mapped by whoever opens it, and nothing in the kernel keeps a second one out."""
    name = host.realpath(path).rsplit("/", 1)[-1]
    size = number(host, f"/sys/bus/dax/devices/{name}/size")  # 0 for what is no DAX device
    uses = tuple(
        Use(kind=UseKind.OPEN, device=name, evidence=handle.evidence)
        for handle in survey.handles
        if handle.kind == "char" and handle.number == found.device
    )
    return PathFacts(
        path=path,
        kind="char",
        size=size,
        virtual_size=size,
        dax=size > 0,
        writable=host.writable(path),
        uses=uses if size else (),
    )


def _with_image(host: HostReader, facts: PathFacts) -> PathFacts:
    """What qemu-img says of a file. '-U' since a running guest may hold its lock."""
    try:
        output = host.query(["qemu-img", "info", "--output=json", "-U", facts.path])
        if output.status != 0:
            words = (output.stderr.strip().splitlines() or ["no words"])[-1]
            return dataclasses.replace(facts, error=f"qemu-img info {facts.path}: {words}")
        said = json.loads(output.stdout)
        return dataclasses.replace(facts, format=said["format"], virtual_size=said["virtual-size"])
    except HostError as error:
        return dataclasses.replace(facts, error=str(error))
    except (KeyError, ValueError) as error:
        return dataclasses.replace(facts, error=f"qemu-img gave no answer as it is documented: {error!r}")


def _is_dax(mount: MountEntry | None) -> bool:
    """Mounted so that every file has DAX. 'dax=inode' leaves it to each file: it then does not count."""
    options = set(mount.options.split(",")) if mount else set()
    return bool(options & {"dax", "dax=always"})
