"""nvlane's own share of `nvlane up`: the wall time of the whole process, less what QEMU takes to start.

A real machine comes up with an emulated lane, under TCG with a blank disk, and goes down again. Its guest is not
looked into, since the time for that is the guest's. `up --json` tells how long QEMU took.

Run it with `make bench`, or `python benchmarks/up.py`. It measures and judges nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from nvlane.apply.process import run

ROUNDS = 10
SPEC = """[machine]
name = "bench"
memory = "128MiB"
cpus = 1
accelerator = "tcg"
image = "boot.img"
image_format = "raw"

[[lane]]
kind = "emulated"
namespaces = [{ image = "data.raw", size = "64MiB" }]
"""


def main() -> None:
    if shutil.which("qemu-system-x86_64") is None:
        print("no qemu-system-x86_64 here: nvlane up is not measured")
        return
    with tempfile.TemporaryDirectory(prefix="nvlane-bench-") as place:
        directory = Path(place)
        (directory / "up.toml").write_text(SPEC)
        with (directory / "boot.img").open("wb") as image:
            image.truncate(1 << 20)
        one_round(directory)  # the first one asks QEMU what it can do; the others find its answer in the cache
        shares = [one_round(directory) for _ in range(ROUNDS)]
    middle = statistics.median(shares)
    print(f"goal  median   least    most   what ({ROUNDS} runs each)")
    print(f"0.3 s {middle:6.3f} {min(shares):7.3f} {max(shares):7.3f}   nvlane up, without QEMU's start and the guest")


def one_round(directory: Path) -> float:
    """Seconds of one `up` that are nvlane's own."""
    environment = {
        "NVLANE_STATE_DIR": str(directory / "state"),
        "NVLANE_RUNTIME_DIR": str(directory / "run"),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(directory / "cache")),
    }
    nvlane = (sys.executable, "-m", "nvlane")
    started = time.perf_counter()
    done = run((*nvlane, "up", "up.toml", "--no-verify", "--json"), env=environment, cwd=directory)
    wall = time.perf_counter() - started
    run((*nvlane, "down", "bench", "--shutdown", "0"), env=environment, cwd=directory)
    seconds: dict[str, float] = json.loads(done.stdout)[0]["seconds"]
    return wall - seconds["start"]


if __name__ == "__main__":
    main()
