"""The demo's Target host: a network name space of its own, from which nvlane exports a file.

::

    tcp:  10.9.0.1 ── veth ── 10.9.0.2    nvmet, which listens in the name space of who opens the port
    rdma: 10.9.7.1 ── rdma_rxe ── veth ── rdma_rxe ── 10.9.7.2    in one name space: see lab.roce
    fc:   port ── nvme-fcloop ── port
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import fcloop, roce
from nvlane.lab.tour import TARGET_ADDRESS, TARGET_NQN, WORK

_SPACE = "nvlane-demo"
_HOST_ADDRESS = "10.9.0.1"
_HERE, _THERE = "demo-host", "demo-target"
_EXPORT = "demo-export"
_HOST_NQN = Path("/etc/nvme/hostnqn")
_IP = ("ip", "-netns", _SPACE)
# Not `ip netns exec`, which has a /sys of its own, where configfs would be nobody else's.
_THERE_TOO = ("nsenter", f"--net=/run/netns/{_SPACE}")
_FABRICS = (sys.executable, "-m", "nvlane", "fabrics")


@contextmanager
def target_host(transport: str) -> Iterator[None]:
    """While it lasts, another host exports a file over this transport; without one there is none. CommandFailed."""
    if not transport:
        yield
        return
    with ExitStack() as later:
        fabrics: tuple[str, ...] = _FABRICS
        match transport:
            case "fc":
                address = fcloop.TARGET_ADDRESS
                later.enter_context(fcloop.fibre_channel())
            case "rdma":
                address = roce.TARGET_ADDRESS
                later.enter_context(roce.roce())
            case _:
                address, fabrics = TARGET_ADDRESS, (*_THERE_TOO, *_FABRICS)
                _network(later)
        what = ["--nqn", TARGET_NQN, "--file", f"{WORK}/exported.raw", "--size", "128MiB"]
        where = ["--transport", transport, "--address", address, "--allow", _HOST_NQN.read_text().strip()]
        _do(later, [*fabrics, "export", _EXPORT, *what, *where], undo=[*fabrics, "unexport", _EXPORT])
        yield


def _network(later: ExitStack) -> None:
    _do(later, ["ip", "netns", "add", _SPACE], undo=["ip", "netns", "delete", _SPACE])
    pair = ["ip", "link", "add", _HERE, "type", "veth", "peer", "name", _THERE, "netns", _SPACE]
    _do(later, pair, undo=["ip", "link", "delete", _HERE])
    process.run(["ip", "address", "add", f"{_HOST_ADDRESS}/24", "dev", _HERE])
    process.run(["ip", "link", "set", _HERE, "up"])
    process.run([*_IP, "address", "add", f"{TARGET_ADDRESS}/24", "dev", _THERE])
    process.run([*_IP, "link", "set", _THERE, "up"])


def _do(later: ExitStack, argv: list[str], *, undo: list[str]) -> None:
    process.run(argv, timeout=120.0)
    later.callback(process.run, undo, timeout=120.0)
