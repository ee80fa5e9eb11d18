"""nvlane-target: nvlane's own target, made for polling under load and for sleeping without it.

::

    QEMU ──vhost-user-blk|scsi──> socket ──> controller ──> reactor (a pinned thread) ──> bdev
                                                                bdev: nvme (the drive on vfio-pci) | aio | malloc | null
    nvlane ──JSON-RPC (SPDK's methods)──> rpc.sock      state.json: all of that, for the next start

Its sockets listen before it runs, so QEMU may connect at once, and again whenever the target is started anew: what was
in flight stands in memory that QEMU keeps (vhost-user.rst, "Inflight I/O tracking").
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

from nvlane.apply.operations.launch import Launch
from nvlane.apply.process_end import explain_end, pin_threads
from nvlane.facts.shape import Facts
from nvlane.model.errors import Bug, HostError, WireError
from nvlane.plan.step import Export, StartTarget
from nvlane.wire.jsonrpc import JsonRpc, RpcError

#: Names in the target. The controller is called as its socket, as SPDK does it: `-S` and the name make the path.
_DISK: Final = "disk0"
_DRIVE: Final = "drive0"
#: Seconds for a drive to become ready: CAP.TO is at most 127.5 s (NVMe Base Specification, Controller Capabilities).
_ATTACH_DEADLINE: Final = 135.0


class NativeTarget:
    """The engine; it holds no state."""

    name = "nvlane"
    frontends = frozenset({"virtio-blk", "virtio-scsi"})
    sources = frozenset({"drive", "file", "malloc", "null"})
    reconnects = True
    any_block_size = False

    def binary(self, facts: Facts) -> str:
        found = facts.target
        return "" if found is None or found.error else found.path

    def problem(self, facts: Facts, source: str) -> tuple[str, str]:  # noqa: ARG002 - it serves everything or nothing
        found = facts.target
        if found is None or found.error:
            return (
                found.error if found else "nvlane-target is not there",
                'build it (make install-tools), or take engine = "qemu-storage-daemon"',
            )
        return "", ""

    def read_only_problem(self, frontend: str, source: str) -> str:
        if frontend == "virtio-scsi" and source != "file":
            return f"nvlane-target shows a {source} behind virtio-scsi only writable"
        return ""

    def launch(self, step: StartTarget) -> Launch:
        state = state_file(step.directory)
        sockets = {"rpc": rpc_socket(step.directory)}
        if step.export is not None:
            sockets["vhost"] = step.export.socket
        return Launch(
            name=step.name,
            directory=step.directory,
            log=f"{step.directory}/target.log",
            sockets=sockets,
            files=(state, f"{state}.new"),
            memlock=step.memlock,
        )

    def argv(self, step: StartTarget, descriptors: Mapping[str, int]) -> tuple[str, ...]:
        return tuple(_arguments(step, descriptors))

    def calls(self, step: StartTarget) -> tuple[str, ...]:
        return tuple(f"{method} {json.dumps(params)}" for method, params in configuration(step.export))

    def ready(self, step: StartTarget, pid: int, deadline: float) -> None:
        """Configure it, unless its saved state says everything already."""
        launch = self.launch(step)
        try:
            with JsonRpc.connect(launch.sockets["rpc"], deadline=deadline, pid=pid) as target:
                target.call("framework_wait_init", deadline=deadline)
                for method, params in _missing(target, step.export):
                    target.call(method, params, deadline=_ATTACH_DEADLINE)
        except RpcError as error:
            raise HostError(
                f"{step.name} cannot be set up: {error.message}", remedy=f"the whole log is {launch.log}"
            ) from error
        except WireError as error:
            raise explain_end(self.argv(step, {}), pid, launch.log, error) from error
        if not step.cores:
            # A polled thread on the one processor that everybody's first reactor is pinned to would serve nobody.
            pin_threads(pid, step.cpus or frozenset(os.sched_getaffinity(0)))

    def quit(self, directory: str, name: str, deadline: float) -> None:  # noqa: ARG002 - one target a directory
        with JsonRpc.connect(rpc_socket(directory), deadline=deadline) as target:
            target.call("spdk_kill_instance", {"sig_name": "SIGTERM"}, deadline=deadline)


def rpc_socket(directory: str) -> str:
    """Where a target in `directory` takes JSON-RPC."""
    return f"{directory}/rpc.sock"


def state_file(directory: str) -> str:
    """Where it keeps its configuration."""
    return f"{directory}/state.json"


def configuration(export: Export | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON-RPC calls that make an export, in order: the bdev, then the controller on it."""
    if export is None:
        return
    yield _bdev(export)
    controller, bdev = _controller(export), bdev_name(export)
    if export.frontend == "virtio-blk":
        yield (
            "vhost_create_blk_controller",
            {"ctrlr": controller, "dev_name": bdev, "readonly": export.read_only},
        )
    else:
        yield "vhost_create_scsi_controller", {"ctrlr": controller}
        yield (
            "vhost_scsi_controller_add_target",
            {"ctrlr": controller, "scsi_target_num": 0, "bdev_name": bdev},
        )


def bdev_name(export: Export) -> str:
    """What the bdev of an export is called: a namespace of a drive after its controller, as SPDK does it."""
    return f"{_DRIVE}n{export.namespace}" if export.address is not None else _DISK


def _bdev(export: Export) -> tuple[str, dict[str, Any]]:
    if export.address is not None:
        where = {"trtype": "PCIe", "traddr": str(export.address)}
        return "bdev_nvme_attach_controller", {"name": _DRIVE, **where}
    if export.path:
        file = {"name": _DISK, "filename": export.path, "block_size": export.block_size}
        return "bdev_aio_create", {**file, "readonly": export.read_only, "fallocate": True}
    size = export.malloc or export.null
    if not size:
        raise Bug(f"the export {export.node} names nothing that nvlane-target serves")
    kind = "malloc" if export.malloc else "null"
    blocks = {"num_blocks": size // export.block_size, "block_size": export.block_size}
    return f"bdev_{kind}_create", {"name": _DISK, **blocks}


def _controller(export: Export) -> str:
    return export.socket.rpartition("/")[2]


def _missing(target: JsonRpc, export: Export | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The calls of a configuration that are still to be made: a target that was started again has what it saved."""
    if export is None:
        return
    bdevs = {bdev["name"] for bdev in target.call("bdev_get_bdevs")}
    there = {found["ctrlr"]: found["backend_specific"] for found in target.call("vhost_get_controllers")}
    controller = _controller(export)
    for method, params in configuration(export):
        match method:
            case "vhost_scsi_controller_add_target":
                done = bool(there.get(controller, {}).get("scsi"))
            case "vhost_create_scsi_controller" | "vhost_create_blk_controller":
                done = controller in there
            case _:
                done = bdev_name(export) in bdevs
        if not done:
            yield method, params


def _arguments(step: StartTarget, descriptors: Mapping[str, int]) -> Iterator[str]:
    yield step.binary
    # Without cores of its own it has one reactor, which ready() lets run on any processor of the node.
    cores = step.cores or frozenset(sorted(step.cpus)[:1])
    if cores:
        yield from ("-m", hex(sum(1 << cpu for cpu in cores)))
    yield from ("-S", step.directory)
    if "rpc" in descriptors:
        yield from ("--rpc-fd", str(descriptors["rpc"]))
    else:
        yield from ("-r", rpc_socket(step.directory))
    if step.export is not None and "vhost" in descriptors:
        yield from ("--vhost-fd", f"{_controller(step.export)}={descriptors['vhost']}")
    if step.config:
        yield from ("-c", step.config)
    yield from ("--state", state_file(step.directory))
    for path in step.opens:
        yield from ("--allow-path", path)
    if not step.sandbox:
        yield "--no-confine"
