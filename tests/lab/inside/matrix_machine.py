"""A machine whose lanes are named as the rows of the matrix are, and what is looked up in it for the matrix."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asking import Disk, blocked, disk_of, ticks
from at_work import Up, nvlane, unchanged, write_spec

from nvlane.model.errors import WireError
from nvlane.qemu.inspect import guest_pci_address, vcpu_threads
from nvlane.wire.qmp import Qmp

#: Seconds for a guest whose processors are emulated, on a machine that has other things to do.
PATIENCE = 400.0


@contextlib.contextmanager
def unwatched(work: Path, lanes: Mapping[str, str], **machine: object) -> Iterator[Up]:
    """Up, and nobody has waited for its guest: QEMU can be asked while that boots."""
    tables = [f'name = "{name}"\n{text}' for name, text in lanes.items()]
    with unchanged():
        said = nvlane("up", "--json", "--no-verify", write_spec(work, "matrix", *tables, **machine))
        try:
            yield Up(name="matrix", said=said.ok())
        finally:
            nvlane("down", "--shutdown", "0", "matrix").ok()


def wrong(up: Up) -> list[dict[str, Any]]:
    """What is not as claimed once the guest has booted."""
    said = nvlane("verify", up.name, "--no-write", "--timeout", str(PATIENCE), "--json")
    return [piece for piece in said.json["evidence"] if not piece["ok"]]


def reset(up: Up) -> list[dict[str, Any]]:
    """The evidence of another boot of the same machine."""
    before = _boot(up)
    with up.monitor() as monitor:
        monitor.execute("system_reset")
    deadline = time.monotonic() + PATIENCE
    while _boot(up) in ("", before):
        assert time.monotonic() < deadline, "the guest did not boot again"
        time.sleep(0.5)
    evidence: list[dict[str, Any]] = nvlane("verify", up.name, "--no-write", "--json").json["evidence"]
    return evidence


def _boot(up: Up) -> str:
    try:
        with up.guest() as guest:
            return str(guest.call("hello")["boot_id"])
    except WireError:
        return ""


def disk(monitor: Qmp, lane: str, work: Path) -> Disk:
    """The block node of a lane that has one."""
    found = disk_of(monitor, lane, work)
    assert found is not None
    return found


def node(up: Up, lane: str) -> str:
    """The guest's name of a lane's disk; of a drive with several namespaces, the first."""
    with up.monitor() as monitor:
        address = guest_pci_address(monitor, lane)
    assert address is not None
    first = {"nsid": 1} if lane == "passthrough" else {}
    with up.guest() as guest:
        return Path(guest.resolve({"pci": str(address), **first}, deadline=60)).name


def queues(up: Up, lane: str) -> int:
    """I/O queues as the guest's kernel has made them, up to two: one for each of its processors."""
    name = node(up, lane)
    if name.startswith("nvme"):
        return int(up.read(f"/sys/class/nvme/{name.rpartition('n')[0]}/queue_count")) - 1  # one is the admin queue
    return len({up.read(f"/sys/block/{name}/mq/{queue}/cpu_list").strip() for queue in (0, 1)} & {"0", "1"})


def against(up: Up) -> list[str]:
    """What QEMU says against the migration of the machine."""
    with up.monitor() as monitor:
        return sorted(blocked(monitor))


def becomes_idle(up: Up, pids: list[int]) -> None:
    """All threads of these processes but the vCPUs': one that polls would take a whole processor."""
    with up.monitor() as monitor:
        guest = vcpu_threads(monitor)
    deadline = time.monotonic() + 60
    while (share := _share(pids, guest)) > 0.5:
        assert time.monotonic() < deadline, f"{share:.0%} of a processor, again and again"


def _share(pids: list[int], guest: tuple[int, ...]) -> float:
    before, since = sum(ticks(pid, leave_out=guest) for pid in pids), time.monotonic()
    time.sleep(1.0)
    after, seconds = sum(ticks(pid, leave_out=guest) for pid in pids), time.monotonic() - since
    return (after - before) / os.sysconf("SC_CLK_TCK") / seconds
