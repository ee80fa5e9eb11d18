"""The lab's own persistent memory."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from at_work import blank

from nvlane.apply import process


@contextlib.contextmanager
def as_dax_device() -> Iterator[str]:
    """All of it as one blank DAX device, and raw again afterwards."""
    there = "device_dax" in Path("/proc/modules").read_text().split()
    # There is no udev here that would load it.
    process.run(["modprobe", "device_dax"])
    make = ["ndctl", "create-namespace", "--force", "--reconfig=namespace0.0"]
    made = process.run([*make, "--mode=devdax", "--map=mem"]).stdout
    device = f"/dev/{json.loads(made)['daxregion']['devices'][0]['chardev']}"
    blank(device)
    try:
        yield device
    finally:
        process.run([*make, "--mode=raw"])
        if not there:
            process.run(["modprobe", "-r", "device_dax"])
