"""RDMA without an adapter: two devices of rdma_rxe (RoCE v2), one at each end of a veth pair.

Both ends are in the lab's own network name space, since rxe receives in the first one only (Linux 6.12,
drivers/infiniband/sw/rxe/rxe_net.c: its UDP socket is opened there). Two addresses of one host would meet without any
device; rules lead what goes from one to the other over the pair all the same, and its counters tell that it came.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nvlane.apply import process
from nvlane.lab.borrowed import modules_as_before

HOST_ADDRESS, TARGET_ADDRESS = "10.9.7.1", "10.9.7.2"
_HOST, _TARGET = "roce-host", "roce-target"
_ENDS = ((_HOST, HOST_ADDRESS, TARGET_ADDRESS), (_TARGET, TARGET_ADDRESS, HOST_ADDRESS))
_TABLE = "109"
#: Those that come with rdma_rxe, or with an export and a connection over it, the users of others first.
_MODULES = (
    "nvme_rdma", "nvmet_rdma", "rdma_rxe", "ip6_udp_tunnel", "udp_tunnel", "rdma_cm", "iw_cm", "ib_cm", "ib_uverbs",
    "ib_core", "nvmet", "nvme_fabrics", "nvme_keyring", "nvme_auth", "configfs", "veth",
)  # fmt: skip


@contextmanager
def roce() -> Iterator[None]:
    """Devices at HOST_ADDRESS and TARGET_ADDRESS; modules that came with them are unloaded again."""
    with ExitStack() as later:
        later.enter_context(modules_as_before(_MODULES))
        process.run(["modprobe", "-a", "veth", "rdma_rxe"])
        pair = ["ip", "link", "add", _HOST, "type", "veth", "peer", "name", _TARGET]
        _do(later, pair, undo=["ip", "link", "delete", _HOST])
        for device, own, _ in _ENDS:
            process.run(["ip", "address", "add", f"{own}/32", "dev", device])
            process.run(["ip", "link", "set", device, "up"])
            # Each end hears from an address that this host has itself.
            Path(f"/proc/sys/net/ipv4/conf/{device}/accept_local").write_text("1")
        _lead_over_the_pair(later)
        for device, _, _ in _ENDS:
            link = ["rdma", "link", "add", device, "type", "rxe", "netdev", device]
            _do(later, link, undo=["rdma", "link", "delete", device])
        yield


def bytes_received(at_target: bool) -> int:
    """What has arrived at one end of the pair."""
    return int(Path(f"/sys/class/net/{_TARGET if at_target else _HOST}/statistics/rx_bytes").read_text())


def _lead_over_the_pair(later: ExitStack) -> None:
    """Rules before the one for local addresses, which stands at 0 and has to move for that."""
    for device, own, other in _ENDS:
        process.run(["ip", "route", "add", other, "dev", device, "src", own, "table", _TABLE])
        # From here, and bound to the device already, which is how rxe and the connection manager look routes up.
        for which in (["iif", "lo"], ["oif", device]):
            rule = ["priority", "1", *which, "to", other, "lookup", _TABLE]
            _do(later, ["ip", "rule", "add", *rule], undo=["ip", "rule", "delete", *rule])
    local = ["lookup", "local"]
    _do(later, ["ip", "rule", "add", "priority", "2", *local], undo=["ip", "rule", "delete", "priority", "2", *local])
    _do(later, ["ip", "rule", "delete", "priority", "0"], undo=["ip", "rule", "add", "priority", "0", *local])


def _do(later: ExitStack, argv: list[str], *, undo: list[str]) -> None:
    process.run(argv)
    later.callback(process.run, undo)
