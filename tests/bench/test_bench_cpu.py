"""Processor time of real processes: this one stands for QEMU and for the target."""

from __future__ import annotations

import os
import time

from nvlane.apply.linux_reader import LinuxReader
from nvlane.bench.cpu import busy_ticks
from nvlane.cli.service.bench_cpu import Watched, read_times


def test_time_that_is_spent_is_seen() -> None:
    host = LinuxReader()
    who = Watched(qemu=os.getpid(), targets=(os.getpid(),))
    before = read_times(host, who)
    own = time.process_time()
    while time.process_time() - own < 0.3:
        sum(range(10_000))
    spent = read_times(host, who).since(before)
    assert 0.25 < spent.qemu < 3.0
    # The same process, read twice in each reading: its clock may tick between the two.
    assert abs(spent.target - spent.qemu) < 0.1 and spent.vcpus == 0
    assert read_times(host, Watched(qemu=os.getpid(), targets=())).target == 0
    assert busy_ticks(host.read_text("/proc/stat").splitlines()[0]) > 0
