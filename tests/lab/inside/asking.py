"""What a running QEMU (or qemu-storage-daemon) is asked for the matrix of lanes: whether it does a thing, by having it
do it, and taking it back."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nvlane.wire.qmp import Qmp, QmpError

#: A job that has to copy a lab's drive, in a guest whose processor is emulated twice.
PATIENCE = 180.0


class Disk:
    """A block node of one monitor: `node` is what the device is on, `device` the name by which QEMU throttles it (None
    where the monitor has no devices)."""

    def __init__(self, monitor: Qmp, node: str, device: str | None, directory: Path) -> None:
        self.monitor = monitor
        self.node = node
        self.device = device
        self.directory = directory

    @property
    def size(self) -> int:
        nodes = self.monitor.execute("query-named-block-nodes", {"flat": True})
        return next(int(one["image"]["virtual-size"]) for one in nodes if one["node-name"] == self.node)

    def snapshot(self) -> None:
        """An overlay takes the writes, the node under it stays as it is; then the overlay is merged back."""
        overlay = self.directory / f"{self.node}.overlay"
        arguments = {"node-name": self.node, "snapshot-file": str(overlay), "format": "qcow2"}
        self.monitor.execute("blockdev-snapshot-sync", {**arguments, "snapshot-node-name": "overlay"})
        self._job("block-commit", {"device": "overlay"}, ready="block-job-complete")
        overlay.unlink()

    def mirror(self) -> None:
        self._copy("blockdev-mirror", {"sync": "none"}, ready="block-job-cancel")

    def backup(self) -> None:
        """Only what the guest writes meanwhile is copied, which is how a copy of a point in time begins."""
        self._copy("blockdev-backup", {"sync": "none"}, running="block-job-cancel")

    def throttle(self) -> None:
        limits = {"bps": 0, "bps_rd": 0, "bps_wr": 0, "iops_rd": 0, "iops_wr": 0}
        self.monitor.execute("block_set_io_throttle", {"id": self.device, "iops": 100, **limits})
        seen = next(one for one in self.monitor.execute("query-block") if one["qdev"] == self.device)
        assert seen["inserted"]["iops"] == 100
        self.monitor.execute("block_set_io_throttle", {"id": self.device, "iops": 0, **limits})

    def resize(self) -> None:
        larger = self.size * 2
        self.monitor.execute("block_resize", {"node-name": self.node, "size": larger})
        assert self.size == larger

    def _copy(self, command: str, arguments: Mapping[str, str], *, ready: str = "", running: str = "") -> None:
        copy = self.directory / f"{self.node}.copy"
        with copy.open("wb") as file:
            file.truncate(self.size)
        self.monitor.execute("blockdev-add", {"driver": "file", "node-name": "copy", "filename": str(copy)})
        self._job(command, {"device": self.node, "target": "copy", **arguments}, ready=ready, running=running)
        self.monitor.execute("blockdev-del", {"node-name": "copy"})
        copy.unlink()

    def _job(self, command: str, arguments: Mapping[str, str], *, ready: str = "", running: str = "") -> None:
        """Start a job and end it by a command of its own, once it is ready, or as soon as it runs."""
        self.monitor.execute(command, {"job-id": "asked", **arguments})
        ours = {"deadline": PATIENCE, "match": lambda data: data.get("device", data.get("id")) == "asked"}
        if ready:
            self.monitor.wait_event("BLOCK_JOB_READY", **ours)
        self.monitor.execute(ready or running, {"device": "asked"})
        ended = self.monitor.wait_event("BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", **ours)["data"]
        assert "error" not in ended, ended
        self.monitor.wait_event("JOB_STATUS_CHANGE", deadline=PATIENCE, match=_is_gone)


def _is_gone(data: Mapping[str, Any]) -> bool:
    return bool(data["id"] == "asked" and data["status"] == "null")


#: What can be asked of a block node, by the name that the matrix gives it.
BLOCK_QUESTIONS: Mapping[str, Callable[[Disk], None]] = {
    "snapshot": Disk.snapshot,
    "mirror": Disk.mirror,
    "backup": Disk.backup,
    "throttle": Disk.throttle,
    "resize": Disk.resize,
}


def disk_of(monitor: Qmp, lane: str, directory: Path) -> Disk | None:
    """The node of a lane's device, None when QEMU has none for it: nothing of its block layer is on that path."""
    for one in monitor.execute("query-block"):
        names = one["qdev"].split("/")
        if "inserted" in one and any(name == lane or name.startswith(f"{lane}-") for name in names):
            return Disk(monitor, one["inserted"]["node-name"], one["qdev"], directory)
    return None


def refused(monitor: Qmp, lane: str, question: str) -> None:
    """QEMU itself does not do this for a device without a block node."""
    name, arguments = {
        "snapshot": ("blockdev-snapshot-sync", {"device": lane, "snapshot-file": "/nowhere", "format": "qcow2"}),
        "mirror": ("blockdev-mirror", {"job-id": "asked", "device": lane, "target": lane, "sync": "full"}),
        "backup": ("blockdev-backup", {"job-id": "asked", "device": lane, "target": lane, "sync": "full"}),
        "throttle": (
            "block_set_io_throttle",
            {"id": lane, "bps": 0, "bps_rd": 0, "bps_wr": 0, "iops": 1, "iops_rd": 0, "iops_wr": 0},
        ),
        "resize": ("block_resize", {"device": lane, "size": 1 << 30}),
    }[question]
    try:
        monitor.execute(name, arguments)
    except QmpError as error:
        assert "Cannot find device" in error.words or "not have a block device" in error.words, error
        return
    raise AssertionError(f"QEMU does {name} for {lane}")


def blocked(monitor: Qmp) -> tuple[str, ...]:
    """Why QEMU would not migrate this machine, in its own words."""
    return tuple(monitor.execute("query-migrate").get("blocked-reasons", ()))


def saved(monitor: Qmp, directory: Path) -> int:
    """Send the whole state of the machine out, as a migration does, and let the machine go on. Its bytes."""
    path, got = directory / "state.sock", [0]
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(PATIENCE)

        def take() -> None:
            peer, _ = listener.accept()
            with peer:
                while data := peer.recv(1 << 20):
                    got[0] += len(data)

        reader = threading.Thread(target=take)
        reader.start()
        capability = {"capability": "events", "state": True}
        monitor.execute("migrate-set-capabilities", {"capabilities": [capability]})
        monitor.execute("migrate", {"uri": f"unix:{path}"})
        ends = {"completed", "failed", "cancelled"}
        end = monitor.wait_event("MIGRATION", match=lambda data: data["status"] in ends, deadline=PATIENCE)
        reader.join(PATIENCE)
    path.unlink()
    assert end["data"]["status"] == "completed", monitor.execute("query-migrate")
    monitor.execute("cont")
    return got[0]


def ticks(pid: int, *, leave_out: tuple[int, ...] = ()) -> int:
    """Processor time of a process in clock ticks, some of its threads left out (proc_pid_stat(5), utime and stime)."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        if int(task.name) in leave_out:
            continue
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += int(fields[11]) + int(fields[12])
    return total


def openers(file: Path) -> list[int]:
    """The processes that have a file open."""
    found = []
    for handles in Path("/proc").glob("[0-9]*/fd"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if any(str(handle.readlink()) == str(file) for handle in handles.iterdir()):
                found.append(int(handles.parent.name))
    return found
