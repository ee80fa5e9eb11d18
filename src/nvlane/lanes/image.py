"""A file or block device as a node of QEMU's block graph, for the lanes that serve one.

The format of an image that is there is what qemu-img says or what the spec says, never probed by QEMU at run time: a
guest that can write a header into a raw image must not be able to change how QEMU reads it.
"""

from __future__ import annotations

from nvlane.facts.shape import PathFacts
from nvlane.lanes.context import Context
from nvlane.model.device import BlockNode
from nvlane.model.size import format_size
from nvlane.plan import refuse
from nvlane.plan.plan import Refusal
from nvlane.plan.step import CreateImage

#: File systems on which O_DIRECT cannot be relied upon.
_NO_DIRECT = frozenset({"tmpfs", "ramfs", "hugetlbfs", ""})


def image_format(path: str, wanted: str, seen: PathFacts) -> str:
    """The format to use: the spec's word, else what is there, else by the name of a new image."""
    if wanted:
        return wanted
    if seen.kind == "file" and seen.format:
        return seen.format
    return "qcow2" if path.endswith(".qcow2") else "raw"


def file_refusals(path: str, size: int, at: Context, place: str, *, read_only: bool = False) -> tuple[Refusal, ...]:
    """An image that is not there and has no size, or is there with another one, or cannot be written or made."""
    seen = at.facts.path(path)
    match seen.kind:
        case "absent":
            return _absent(path, size, seen, at, place)
        case "file":
            if size and seen.virtual_size and seen.virtual_size != size:
                return (
                    at.refuse(
                        "image-size",
                        f"{place}: {path} is {format_size(seen.virtual_size)} and the spec says {format_size(size)}",
                        evidence=(f"qemu-img info: {seen.format or 'raw'}, {seen.virtual_size} bytes",),
                        remedy="leave size out, give the true one, or name another file",
                    ),
                )
            if not seen.writable and not read_only:
                return (
                    at.refuse(
                        "image-access",
                        f"{place}: {path} cannot be written by user {at.facts.uid}",
                        remedy="check its owner and mode, or write read_only = true",
                    ),
                )
            return ()
        case "block":
            return (
                at.refuse("image-is-device", f"{place}: {path} is a block device", remedy=f'write device = "{path}"'),
            )
        case _:
            return (
                at.refuse(
                    "image-kind", f"{place}: {path} is no file ({seen.error or seen.kind})", remedy="name an image file"
                ),
            )


def _absent(path: str, size: int, seen: PathFacts, at: Context, place: str) -> tuple[Refusal, ...]:
    if not size:
        return (
            at.refuse(
                "no-image",
                f"{place}: {path} does not exist, and no size is given to create it with",
                remedy='give it a size, as size = "5GiB"',
            ),
        )
    if not seen.parent_exists or not seen.writable:
        what = "does not exist" if not seen.parent_exists else "cannot be written"
        return (
            at.refuse("no-directory", f"{place}: the directory of {path} {what}", remedy="make it, or name another"),
        )
    return ()


def device_refusals(path: str, at: Context, place: str) -> tuple[Refusal, ...]:
    """A block device that is not there or is in use on the host."""
    seen = at.facts.path(path)
    if seen.kind != "block":
        return (
            at.refuse(
                "no-block-device",
                f"{place}: {path} is no block device ({seen.error or seen.kind})",
                remedy="name one (see lsblk), or use image = for a file",
            ),
        )
    return refuse.uses(at.index, f"{place}: {path}", seen.uses)


def create_step(path: str, size: int, fmt: str, at: Context) -> tuple[CreateImage, ...]:
    if at.facts.path(path).kind != "absent":
        return ()
    return (CreateImage(path=path, format=fmt, size=size),)


def blockdev(name: str, path: str, fmt: str, at: Context, *, read_only: bool = False) -> BlockNode:
    """A node for a path of the spec."""
    return block_node(name, path, fmt, at.facts.path(path), read_only=read_only)


def block_node(name: str, path: str, fmt: str, seen: PathFacts, *, read_only: bool = False) -> BlockNode:
    """The format node with its protocol node inside. Direct I/O where the file system has it: the guest has a page
    cache of its own, and a second one would only lie about what is on the disk."""
    block = seen.kind == "block"
    direct = block or seen.filesystem not in _NO_DIRECT
    file: dict[str, object] = {
        "driver": "host_device" if block else "file",
        "filename": path,
        "aio": "native" if direct else "threads",
        "cache": {"direct": direct, "no-flush": False},
        "discard": "unmap",
    }
    if read_only:
        file["read-only"] = True
    options: dict[str, object] = {"file": file, "discard": "unmap"}
    if read_only:
        options["read-only"] = True
    return BlockNode(driver=fmt, node_name=name, options=options)
