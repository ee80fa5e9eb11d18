"""Memory that is plugged in and out while the guest writes: every session goes on with another memory table."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from machine_room import KINDS, create
from probe_machine import MIB, Disposal, Machine, load
from target_process import Target, program

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(program() is None, reason="nvlane-target has not been built (tools/prepare)"),
]

PLUGGED = 128 * MIB


def more_rounds(rounds: list[int], machine: Machine, count: int = 2) -> None:
    """The load goes on."""
    seen, until = len(rounds), time.monotonic() + 60
    while len(rounds) < seen + count:
        assert time.monotonic() < until, machine.last_words()
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["blk-split", "blk-packed", "scsi-split"])
def test_memory_comes_and_goes_under_load(kind: str, tmp_path: Path) -> None:
    with Target(tmp_path) as target:
        create(target, kind, size=16 * MIB)
        disk = replace(KINDS[kind], socket=target.socket(kind))
        with Machine(tmp_path, "guest", [disk], Disposal(slots=4)) as machine:
            with load(machine, [kind], 2 * MIB) as rounds:
                more_rounds(rounds, machine, 1)
                for slot in range(3):
                    backend = {"qom-type": "memory-backend-memfd", "id": f"more{slot}", "size": PLUGGED, "share": True}
                    machine.monitor.execute("object-add", backend)
                    machine.monitor.execute(
                        "device_add", {"driver": "pc-dimm", "id": f"dimm{slot}", "memdev": f"more{slot}"}
                    )
                    more_rounds(rounds, machine)
                assert len(machine.monitor.execute("query-memory-devices")) == 3
                # The guest's kernel has not taken it into use yet, and lets go of it.
                machine.monitor.execute("device_del", {"id": "dimm1"})
                machine.monitor.wait_event("DEVICE_DELETED", deadline=30)
                machine.monitor.execute("object-del", {"id": "more1"})
                more_rounds(rounds, machine)
                assert len(machine.monitor.execute("query-memory-devices")) == 2
            # A front end whose memory table is refused is disconnected, and says so.
            log = machine.path("log").read_text(errors="replace") + target.last_words()
            assert "vhost" not in log.lower() and "disconnected" not in log, log
