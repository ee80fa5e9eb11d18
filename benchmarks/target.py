"""nvlane-target beside qemu-storage-daemon, driven by a program of neither: `qemu-img bench` through libblkio.

Every figure is the median of a few rounds, in which the two targets take turns (A B A B), so that a busy machine hurts
both alike. The target has one processor, the load another. `null` touches no data (`null-co,read-zeroes=off`); `file`
is a file on a tmpfs; `malloc` has no counterpart there and is shown alone. The second table shows what the target
costs when nobody asks for anything, with sixteen clients connected.

Run it with `make bench-target`, or `python benchmarks/target.py [--quick] [--json FILE]`. It needs neither a guest nor
KVM nor privilege. It measures and judges nothing; `qemu-img` itself is the limit of the highest figures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from peers import Peers, peers

from nvlane.apply import process
from nvlane.apply.linux import LinuxHost
from nvlane.apply.operations.processes import start_time_of
from nvlane.targets.program import packaged_target

ROUNDS = 5
SECONDS = 1.0
SIZE = 256 << 20
LOADS = ((4096, 1), (4096, 8), (4096, 32), (4096, 128), (128 << 10, 16))
CLIENTS = 16
IDLE_SECONDS = 10.0
NVLANE, PEER = "nvlane-target", "qemu-storage-daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """Requests per second of one target at one load, one entry a round."""

    target: str
    device: str
    size: int
    depth: int
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """What a target costs that nobody uses: CPU as a share of one processor, resident memory in bytes, and the seconds
    from its start until its socket answers."""

    target: str
    processor: float
    resident: int
    ready: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, half a second each")
    parser.add_argument("--json", metavar="FILE", help="write every figure there")
    chosen = parser.parse_args()
    rounds, seconds = (1, 0.5) if chosen.quick else (ROUNDS, SECONDS)
    programs = peers()
    with tempfile.TemporaryDirectory(prefix="nvlane-bench-", dir="/dev/shm") as name:
        place = Path(name)
        figures = list(speed(programs, place, rounds, seconds))
        idle = [at_rest(programs, place, target) for target in (NVLANE, PEER)]
    report(figures, idle, rounds)
    if chosen.json:
        record = {"figures": [asdict(figure) for figure in figures], "idle": [asdict(entry) for entry in idle]}
        Path(chosen.json).write_text(json.dumps(record, indent=1) + "\n")


def speed(programs: Peers, place: Path, rounds: int, seconds: float) -> Iterator[Figure]:
    for device in ("null", "file", "malloc"):
        targets = (NVLANE,) if device == "malloc" else (NVLANE, PEER)
        seen: dict[tuple[str, int, int], list[float]] = {}
        with serving(programs, place, device, targets) as sockets:
            for size, depth in LOADS:
                note(f"{device}, {text(size)} at depth {depth}")
                counts = {target: calibrate(programs, sockets[target], size, depth, seconds) for target in targets}
                for _ in range(rounds):
                    for target in targets:
                        rate = counts[target] / bench(programs, sockets[target], size, depth, counts[target])
                        seen.setdefault((target, size, depth), []).append(rate)
        for (target, size, depth), rates in seen.items():
            yield Figure(target=target, device=device, size=size, depth=depth, rounds=tuple(rates))


@contextmanager
def serving(programs: Peers, place: Path, device: str, targets: Sequence[str]) -> Iterator[dict[str, str]]:
    """The sockets of the targets that serve `device`, all of them at once and all on the first processor: the one that
    is not asked sleeps, or would show that it does not."""
    started: list[int] = []
    sockets: dict[str, str] = {}
    try:
        for target in targets:
            directory = place / f"{target}-{device}"
            directory.mkdir()
            sockets[target] = f"{directory}/disk0"
            started.append(start(programs, target, directory, [device]))
            until_there(sockets[target], started[-1])
        yield sockets
    finally:
        for pid in started:
            stop(pid)


def start(programs: Peers, target: str, directory: Path, devices: Sequence[str]) -> int:
    """Start a target that serves each of the devices on the socket `disk<number>` of the directory."""
    command = ours(directory, devices) if target == NVLANE else theirs(programs, directory, devices)
    environment = {} if target == NVLANE else programs.environment
    return process.spawn(["taskset", "-c", "0", *command], log=directory / "log", env=environment)


def ours(directory: Path, devices: Sequence[str]) -> list[str]:
    bdevs, controllers = [], []
    for number, device in enumerate(devices):
        name, blocks = f"bdev{number}", {"num_blocks": SIZE // 512, "block_size": 512}
        if device == "file":
            params = {"name": name, "filename": backing(directory, number), "block_size": 512}
            bdevs.append({"method": "bdev_uring_create", "params": params})
        else:
            bdevs.append({"method": f"bdev_{device}_create", "params": {"name": name, **blocks}})
        params = {"ctrlr": f"disk{number}", "dev_name": name}
        controllers.append({"method": "vhost_create_blk_controller", "params": params})
    subsystems = [{"subsystem": "bdev", "config": bdevs}, {"subsystem": "vhost_blk", "config": controllers}]
    (directory / "config.json").write_text(json.dumps({"subsystems": subsystems}))
    paths = ["-S", str(directory), "-r", str(directory / "rpc.sock"), "-c", str(directory / "config.json")]
    return [packaged_target(), "-m", "0x1", *paths]


def theirs(programs: Peers, directory: Path, devices: Sequence[str]) -> list[str]:
    command = [*programs.command(PEER), "--object", "iothread,id=io0"]
    for number, device in enumerate(devices):
        if device == "file":
            node = f"driver=file,filename={backing(directory, number)}"
        else:
            node = f"driver=null-co,size={SIZE},read-zeroes=off"
        export = f"type=vhost-user-blk,id=export{number},node-name=node{number},iothread=io0,num-queues=1,writable=on"
        command += ["--blockdev", f"{node},node-name=node{number}"]
        command += ["--export", f"{export},addr.type=unix,addr.path={directory}/disk{number}"]
    return command


def backing(directory: Path, number: int) -> str:
    """A file with data in all of it: a hole is read in another way."""
    path = directory / f"file{number}"
    with path.open("wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
    return str(path)


def until_there(socket: str, pid: int, deadline: float = 20.0) -> None:
    host = LinuxHost()
    if not host.wait_until(lambda: Path(socket).exists() or start_time_of(host, pid) is None, deadline=deadline):
        raise SystemExit(f"{socket} did not appear in {deadline:.0f} s")
    if not Path(socket).exists():
        raise SystemExit(f"the target ended:\n{(Path(socket).parent / 'log').read_text()}")


def stop(pid: int) -> None:
    host = LinuxHost()
    began = start_time_of(host, pid)
    if began is not None and host.signal(pid, began, signal.SIGTERM) and not host.wait_end(pid, began, deadline=10):
        host.signal(pid, began, signal.SIGKILL)
        host.wait_end(pid, began, deadline=10)


def calibrate(programs: Peers, socket: str, size: int, depth: int, seconds: float) -> int:
    """How many requests take about that long; the first, short run also warms up."""
    count = 2000
    while True:
        took = bench(programs, socket, size, depth, count)
        if took > seconds / 8:
            return max(1000, int(count * seconds / took))
        count *= 4


def bench(programs: Peers, socket: str, size: int, depth: int, count: int) -> float:
    """Seconds that the requests took, by qemu-img's own clock. The step scatters them over the device."""
    words = ["-c", str(count), "-d", str(depth), "-s", str(size), "-S", str(17 * size), "-t", "none", "--image-opts"]
    command = ["taskset", "-c", "1", *programs.command("qemu-img"), "bench", *words]
    done = process.run([*command, f"driver=virtio-blk-vhost-user,path={socket}"], env=programs.environment)
    found = re.search(r"completed in ([\d.]+) seconds", done.stdout)
    if not found:
        raise SystemExit(f"qemu-img did not say how long it took:\n{done.stdout}{done.stderr}")
    return float(found[1])


def at_rest(programs: Peers, place: Path, target: str) -> Idle:
    note(f"{target} at rest, {CLIENTS} clients connected")
    directory = place / f"{target}-idle"
    directory.mkdir()
    began = time.perf_counter()
    pid = start(programs, target, directory, ["null"] * CLIENTS)
    clients = 0
    try:
        until_there(f"{directory}/disk{CLIENTS - 1}", pid)
        ready = time.perf_counter() - began
        clients = connect(programs, directory)
        before, first = processor_seconds(pid), time.perf_counter()
        LinuxHost().wait_until(lambda: False, deadline=IDLE_SECONDS)
        share = (processor_seconds(pid) - before) / (time.perf_counter() - first)
        status = Path(f"/proc/{pid}/status").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) << 10  # type: ignore[index]
    finally:
        for process_id in filter(None, (clients, pid)):
            stop(process_id)
    return Idle(target=target, processor=share, resident=resident, ready=ready)


def connect(programs: Peers, directory: Path) -> int:
    """A storage daemon with a connection to each socket, which asks for nothing."""
    command = list(programs.command(PEER))
    for number in range(CLIENTS):
        where = f"path={directory}/disk{number},cache.direct=on"
        command += ["--blockdev", f"driver=virtio-blk-vhost-user,node-name=n{number},{where}"]
    pid = process.spawn(
        [*command, "--pidfile", f"{directory}/there"], log=directory / "clients", env=programs.environment
    )
    until_there(f"{directory}/there", pid)
    return pid


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def report(figures: Sequence[Figure], idle: Sequence[Idle], rounds: int) -> None:
    rates = {(figure.target, figure.device, figure.size, figure.depth): figure.median for figure in figures}
    print(f"{'read':>8} {'depth':>5}  {'device':8} {NVLANE:>14} {PEER:>20}  ratio   (requests/s, {rounds} rounds)")
    for device in ("null", "file", "malloc"):
        for size, depth in LOADS:
            mine, other = rates[NVLANE, device, size, depth], rates.get((PEER, device, size, depth))
            beside = f"{other:20,.0f}  {mine / other:5.2f}" if other else f"{'-':>20}"
            print(f"{text(size):>8} {depth:5}  {device:8} {mine:14,.0f} {beside}")
    print(f"\nat rest, {CLIENTS} clients     processor   resident   ready after")
    for entry in idle:
        print(f"{entry.target:25} {entry.processor:8.2%} {entry.resident / 2**20:7.1f} MiB {entry.ready:9.2f} s")


def text(size: int) -> str:
    return f"{size >> 10} KiB"


def note(words: str) -> None:
    print(f"bench: {words}", file=sys.stderr)


if __name__ == "__main__":
    main()
