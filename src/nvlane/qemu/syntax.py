"""The two syntaxes of QEMU's command line: JSON, and the older `key=value,...`.

JSON is taken wherever QEMU reads it (-blockdev since 2.9, -object 6.0, -device 6.2, -netdev 7.2:
docs/about/deprecated and qapi/qdev.json of those releases): types stay types and a comma in a path needs no
care.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nvlane.model.device import BlockNode, Frontend, Object, SocketChardev


def escape(text: str) -> str:
    """A value for `key=value,...`: a comma is written twice (util/keyval.c)."""
    return text.replace(",", ",,")


def compact(value: Mapping[str, Any]) -> str:
    """JSON on one line, keys in the order given, non-ASCII kept, tuples as arrays."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def object_properties(item: Object) -> dict[str, Any]:
    """What `-object` and QMP's object-add take."""
    return {"qom-type": item.qom_type, "id": item.id, **item.properties}


def node_options(node: BlockNode) -> dict[str, Any]:
    """What `-blockdev` and QMP's blockdev-add take."""
    return {"driver": node.driver, "node-name": node.node_name, **node.options}


def device_properties(device: Frontend, bus: str = "") -> dict[str, Any]:
    """What `-device` and QMP's device_add take. `bus` is the port that a device with a slot got."""
    properties: dict[str, Any] = {"driver": device.driver, "id": device.id}
    if device.host is not None:
        properties["host"] = str(device.host)
    if bus:
        properties["bus"] = bus
    return {**properties, **device.properties}


def chardev_options(chardev: SocketChardev) -> str:
    """What `-chardev` takes. `reconnect-ms` exists since QEMU 9.2; it is written only when it was asked
    for."""
    reconnect = f",reconnect-ms={chardev.reconnect_ms}" if chardev.reconnect_ms else ""
    return f"socket,id={chardev.id},path={escape(chardev.path)}{reconnect}"


def chardev_backend(chardev: SocketChardev) -> dict[str, Any]:
    """What QMP's chardev-add takes (ChardevSocket of qapi/char.json)."""
    data: dict[str, Any] = {"addr": {"type": "unix", "data": {"path": chardev.path}}, "server": False}
    if chardev.reconnect_ms:
        data["reconnect-ms"] = chardev.reconnect_ms
    return {"id": chardev.id, "backend": {"type": "socket", "data": data}}
