"""The demo's Target host: a network name space of its own, from which nvlane exports a file over tcp.

::

    the lab's own hosts:   10.9.0.1 ── veth ── 10.9.0.2  nvmet, which listens in the name space of who opens the port
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nvlane.apply import process
from nvlane.lab.tour import TARGET_ADDRESS, TARGET_NQN, WORK

_SPACE = "nvlane-demo"
_HOST_ADDRESS = "10.9.0.1"
_HERE, _THERE = "demo-host", "demo-target"
_EXPORT = "demo-export"
_HOST_NQN = Path("/etc/nvme/hostnqn")
_IP = ("ip", "-netns", _SPACE)


@contextmanager
def target_host(size: str) -> Iterator[None]:
    """While it lasts, another host exports a file of this size; without a size there is none. CommandFailed."""
    if not size:
        yield
        return
    with ExitStack() as later:
        _do(later, ["ip", "netns", "add", _SPACE], undo=["ip", "netns", "delete", _SPACE])
        pair = ["ip", "link", "add", _HERE, "type", "veth", "peer", "name", _THERE, "netns", _SPACE]
        _do(later, pair, undo=["ip", "link", "delete", _HERE])
        process.run(["ip", "address", "add", f"{_HOST_ADDRESS}/24", "dev", _HERE])
        process.run(["ip", "link", "set", _HERE, "up"])
        process.run([*_IP, "address", "add", f"{TARGET_ADDRESS}/24", "dev", _THERE])
        process.run([*_IP, "link", "set", _THERE, "up"])
        # Not `ip netns exec`, which has a /sys of its own, where configfs would be nobody else's.
        nvlane = ["nsenter", f"--net=/run/netns/{_SPACE}", sys.executable, "-m", "nvlane", "fabrics"]
        what = ["--nqn", TARGET_NQN, "--file", f"{WORK}/exported.raw", "--size", size]
        where = ["--address", TARGET_ADDRESS, "--allow", _HOST_NQN.read_text().strip()]
        _do(later, [*nvlane, "export", _EXPORT, *what, *where], undo=[*nvlane, "unexport", _EXPORT])
        yield


def _do(later: ExitStack, argv: list[str], *, undo: list[str]) -> None:
    process.run(argv, timeout=120.0)
    later.callback(process.run, undo, timeout=120.0)
