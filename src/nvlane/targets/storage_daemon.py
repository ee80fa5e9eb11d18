"""qemu-storage-daemon: QEMU's block layer without a machine around it, the target that every distribution
ships.

::

    QEMU ──vhost-user-blk──> socket ──> export (iothread) ──> raw node ──> file | host_device | null-co
                                                         └──> nvme (the drive on vfio-pci)

It speaks vhost-user-blk only, serves one client an export, and has no seccomp sandbox (there is no such
option in storage-daemon/qemu-storage-daemon.c). Its own QMP socket stays for block jobs: mirror, backup,
snapshots live here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from nvlane.apply.operations.launch import Launch
from nvlane.apply.process_end import explain_end, pin_threads
from nvlane.facts.shape import Facts
from nvlane.model.errors import Bug, HostError, WireError
from nvlane.plan.step import Export, StartTarget
from nvlane.wire.qmp import Qmp

_EXPORT, _NODE, _THREAD = "export0", "disk0", "io0"


class StorageDaemon:
    """The engine; it holds no state."""

    name = "qemu-storage-daemon"
    frontends = frozenset({"virtio-blk"})
    sources = frozenset({"drive", "file", "null"})
    reconnects = False
    any_block_size = True

    def binary(self, facts: Facts) -> str:
        found = facts.storage_daemon
        return "" if found is None or found.error else found.path

    def problem(self, facts: Facts, source: str) -> tuple[str, str]:
        found = facts.storage_daemon
        if found is None or found.error:
            return (
                found.error if found else "qemu-storage-daemon is not installed",
                "install qemu-utils or qemu-system-common",
            )
        if source == "malloc":
            return (
                "qemu-storage-daemon has no device of memory",
                "make a file on a tmpfs (/dev/shm) and name it in lane.file",
            )
        if "vhost-user-blk" not in found.exports:
            return f"{found.path} is built without the vhost-user-blk export", "install a build that has it"
        driver = {"drive": "nvme", "null": "null-co", "file": "file"}[source]
        if driver not in found.block_drivers:
            return f"{found.path} is built without the block driver {driver}", "install a build that has it"
        return "", ""

    def read_only_problem(self, frontend: str, source: str) -> str:  # noqa: ARG002 - every export can be read-only
        return ""

    def launch(self, step: StartTarget) -> Launch:
        log = f"{step.directory}/target.log"
        return Launch(
            name=step.name,
            directory=step.directory,
            log=log,
            sockets={"export": _served(step).socket, "qmp": f"{step.directory}/qmp.sock"},
            memlock=step.memlock,
        )

    def argv(self, step: StartTarget, descriptors: Mapping[str, int]) -> tuple[str, ...]:
        return tuple(_arguments(step, descriptors))

    def calls(self, step: StartTarget) -> tuple[str, ...]:  # noqa: ARG002 - its command line says everything
        return ()

    def ready(self, step: StartTarget, pid: int, deadline: float) -> None:
        """It answers once all of its command line is done, the export included; the question makes sure of
        that."""
        launch = self.launch(step)
        try:
            with Qmp.connect(launch.sockets["qmp"], deadline=deadline, pid=pid) as monitor:
                exports = [entry["id"] for entry in monitor.execute("query-block-exports")]
        except WireError as error:
            raise explain_end(self.argv(step, {}), pid, launch.log, error) from error
        if _EXPORT not in exports:
            raise HostError(
                f"{step.name} runs, but serves nothing on {_served(step).socket}", remedy=f"read {launch.log}"
            )
        pin_threads(pid, step.cpus)

    def quit(self, directory: str, name: str, deadline: float) -> None:  # noqa: ARG002 - one target a directory
        with Qmp.connect(f"{directory}/qmp.sock", deadline=deadline) as monitor:
            monitor.execute("quit", deadline=deadline)


def _served(step: StartTarget) -> Export:
    if step.export is None:
        raise Bug(f"{step.name}: qemu-storage-daemon is told on its command line what it serves")
    return step.export


def _arguments(step: StartTarget, descriptors: Mapping[str, int]) -> Iterator[str]:
    export = _served(step)
    yield step.binary
    yield from ("--object", _json({"qom-type": "iothread", "id": _THREAD}))
    for node in _nodes(export):
        yield from ("--blockdev", _json(node))
    if "qmp" in descriptors:
        where = f"fd={descriptors['qmp']}"
    else:
        where = f"path={step.directory.replace(',', ',,')}/qmp.sock"
    yield from ("--chardev", f"socket,id=qmp,{where},server=on,wait=off")
    yield from ("--monitor", "chardev=qmp")
    yield from ("--export", _json(_export(export, descriptors)))


def _nodes(export: Export) -> Iterator[dict[str, Any]]:
    """The block graph; its top node is `_NODE`."""
    access = {"read-only": export.read_only, "discard": "unmap"}
    if export.address is not None:
        yield {
            "driver": "nvme",
            "node-name": _NODE,
            "device": str(export.address),
            "namespace": export.namespace,
            **access,
        }
    elif export.path and export.block_device:
        # Linux AIO without the page cache: the drive's own ordering and flushes are all there is.
        cache = {"cache": {"direct": True}, "aio": "native"}
        yield {"driver": "host_device", "node-name": "file0", "filename": export.path, **cache, **access}
        yield {"driver": "raw", "node-name": _NODE, "file": "file0", **access}
    elif export.path:
        # Threads and the page cache work on every file system; tmpfs refuses O_DIRECT before Linux 6.6.
        yield {"driver": "file", "node-name": "file0", "filename": export.path, "aio": "threads", **access}
        yield {"driver": "raw", "node-name": _NODE, "file": "file0", **access}
    elif export.null:
        yield {"driver": "null-co", "node-name": _NODE, "size": export.null, "read-zeroes": True}
    else:
        raise Bug(f"the export {export.node} names nothing that qemu-storage-daemon serves")


def _export(export: Export, descriptors: Mapping[str, int]) -> dict[str, Any]:
    if "export" in descriptors:
        # The descriptor listens already (docs/tools/qemu-storage-daemon.rst, --export, addr.type=fd).
        where: dict[str, Any] = {"type": "fd", "str": str(descriptors["export"])}
    else:
        where = {"type": "unix", "path": export.socket}
    return {
        "type": "vhost-user-blk",
        "id": _EXPORT,
        "node-name": _NODE,
        "addr": where,
        "writable": not export.read_only,
        "num-queues": export.queues,
        "logical-block-size": export.block_size,
        "iothread": _THREAD,
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
