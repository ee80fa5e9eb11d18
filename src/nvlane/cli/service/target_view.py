"""What a running target says of itself, and any call that a person makes to it."""

from __future__ import annotations

from typing import Any, Self

from nvlane.cli.service.targets import SeenTarget, living_target
from nvlane.cli.service.world import this_world
from nvlane.model.codec import encode
from nvlane.model.errors import HostError, WireError
from nvlane.targets.native import rpc_socket
from nvlane.targets.native_module import method_names
from nvlane.targets.rates import Counters, Rates, rates
from nvlane.wire.jsonrpc import METHOD_NOT_FOUND, JsonRpc, RpcError


def socket_of(name: str) -> str:
    """The RPC socket of a target, by the target's name or by its own path. Raises HostError."""
    if "/" in name:
        return name
    seen = living_target(this_world(), name)
    if seen.step.engine != "nvlane":
        raise HostError(
            f"{name} is a {seen.step.engine}, which speaks no JSON-RPC",
            remedy=f"its QMP socket is {seen.step.directory}/qmp.sock",
        )
    return rpc_socket(seen.step.directory)


def call(name: str, method: str, parameters: dict[str, Any], deadline: float) -> Any:
    """The result of one method. Raises RpcError with the target's own words and the nearest method that there is."""
    with JsonRpc.connect(socket_of(name)) as target:
        try:
            return target.call(method, parameters, deadline=deadline)
        except RpcError as error:
            if error.code == METHOD_NOT_FOUND:
                from nvlane.spec.nearest import nearest

                hint = nearest(method, method_names())
                raise WireError(
                    f"the target has no method '{method}'{hint}", remedy=f"nvlane target rpc {name} rpc_get_methods"
                ) from error
            raise


def view_of(seen: SeenTarget) -> dict[str, Any]:
    """All about one target: what its journal says, and, while it runs, what it says itself."""
    view: dict[str, Any] = {
        "target": seen.name,
        "engine": seen.step.engine,
        "machine": seen.machine.name if seen.machine else None,
        "running": bool(seen.pid),
        "pid": seen.pid or None,
        "directory": seen.step.directory,
        "log": f"{seen.step.directory}/target.log",
        "export": encode(seen.step.export) if seen.step.export else None,
    }
    if seen.pid and seen.step.engine == "nvlane":
        with JsonRpc.connect(rpc_socket(seen.step.directory)) as target:
            view["version"] = target.call("spdk_get_version")["version"]
            view["reactors"] = target.call("framework_get_reactors")["reactors"]
            view["bdevs"] = target.call("bdev_get_bdevs")
            view["controllers"] = target.call("vhost_get_controllers")
    return view


class Watch:
    """A connection that is asked again and again."""

    def __init__(self, name: str) -> None:
        self._target = JsonRpc.connect(socket_of(name))
        self._last = self._look()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._target.close()

    def rates(self) -> Rates:
        """What came to pass since the last time."""
        before, self._last = self._last, self._look()
        return rates(before, self._last)

    def controllers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._target.call("vhost_get_controllers")
        return found

    def _look(self) -> Counters:
        return Counters(
            reactors=self._target.call("framework_get_reactors"), bdevs=self._target.call("bdev_get_iostat")
        )
