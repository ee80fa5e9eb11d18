"""nvlane's own share of `up`: what it takes beyond QEMU's own start.

Two ways to the same running machine, in turn, in the same run: `nvlane up --no-verify` as a whole process, and the very
QEMU command of its plan started bare and waited for in the same way (QMP answers). The difference is nvlane: Python's
start, spec, facts, plan, journal and every step but QEMU itself.

Run it with `make bench`, or `python benchmarks/up.py`. It needs QEMU and no lab, no KVM and no privilege. It
measures and judges nothing.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from nvlane.apply.launch_qemu import QemuLauncher
from nvlane.apply.linux import LinuxHost
from nvlane.apply.operations.launch import FIRST_DESCRIPTOR
from nvlane.apply.operations.processes import start_time_of
from nvlane.apply.process import run
from nvlane.cli.service.world import read_for, this_world
from nvlane.lanes.compose import make_plan
from nvlane.plan.step import StartMachine
from nvlane.spec.reader import read_spec
from nvlane.targets.table import ENGINES

ROUNDS = 7
NVLANE = (sys.executable, "-m", "nvlane")
SPEC = """[machine]
name = "bench"
memory = "256MiB"
accelerator = "tcg"
image = "boot.raw"

[[lane]]
kind = "emulated"
namespaces = [{ image = "one.raw" }, { image = "two.raw" }]
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="nvlane-bench-") as place:
        os.environ["NVLANE_STATE_DIR"] = f"{place}/state"
        os.environ["NVLANE_RUNTIME_DIR"] = f"{place}/run"
        for name in ("boot.raw", "one.raw", "two.raw"):
            with Path(place, name).open("wb") as file:
                file.truncate(64 << 20)
        spec = Path(place, "bench.toml")
        spec.write_text(SPEC)
        up(spec)  # the first run asks QEMU what it has, and Python writes its caches
        rounds = [(up(spec), bare(spec)) for _ in range(ROUNDS)]
    whole, alone = (statistics.median(column) for column in zip(*rounds, strict=True))
    share = statistics.median(a - b for a, b in rounds)
    print(f"goal  median   what ({ROUNDS} rounds, in turn)")
    print(f"      {whole:6.3f}   nvlane up, the whole process")
    print(f"      {alone:6.3f}   the same QEMU started bare, until QMP answers")
    print(f"0.3 s {share:6.3f}   nvlane's own share of up; ratio {whole / alone:.2f}")


def up(spec: Path) -> float:
    started = time.perf_counter()
    run([*NVLANE, "up", "-q", "--no-verify", str(spec)])
    seconds = time.perf_counter() - started
    run([*NVLANE, "down", "-q", "--shutdown", "0", "bench"])
    return seconds


def bare(spec_file: Path) -> float:
    """The plan's own QEMU command, started as nvlane starts it, without nvlane around it."""
    world, spec = this_world(), read_spec(str(spec_file))
    step = make_plan(spec, read_for(world, spec), ENGINES).steps[-1]
    assert isinstance(step, StartMachine)
    launcher, host = QemuLauncher(), LinuxHost()
    launch = launcher.launch(step)
    Path(launch.directory).mkdir(parents=True)
    started = time.perf_counter()
    ours = {name: host.listen(path) for name, path in launch.sockets.items()}
    numbers = {name: FIRST_DESCRIPTOR + index for index, name in enumerate(ours)}
    pid = host.spawn(
        launcher.argv(step, numbers),
        log=launch.log,
        descriptors={numbers[name]: ours[name] for name in ours},
        environment={},
        memlock=None,
    )
    try:
        launcher.ready(step, pid, 60.0)
        return time.perf_counter() - started
    finally:
        birth = start_time_of(host, pid)
        os.kill(pid, signal.SIGKILL)
        if birth is not None:
            host.wait_end(pid, birth, deadline=10.0)
        for descriptor in ours.values():
            os.close(descriptor)
        for path in (*launch.sockets.values(), launch.log, *launch.files):
            Path(path).unlink(missing_ok=True)
        Path(launch.directory).rmdir()


if __name__ == "__main__":
    main()
