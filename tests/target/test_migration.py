"""Live migration under load: the destination's memory is the source's, byte for byte, so the log missed no write of the
device; and the guest goes on."""

from __future__ import annotations

import hashlib
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

DISK = 16 * MIB
AREA = 2 * MIB
PATTERN = (bytes(range(251)) * (4 * MIB // 251 + 1))[: 4 * MIB]


def differing_pages(one: Path, other: Path) -> list[int]:
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    return [at // 4096 for at in range(0, len(first), 4096) if first[at : at + 4096] != second[at : at + 4096]]


def migrate(source: Machine, destination: Machine, socket: Path) -> None:
    """Up to the point where both are paused and everything has been sent."""
    for machine in (source, destination):
        machine.monitor.execute(
            "migrate-set-capabilities", {"capabilities": [{"capability": "pause-before-switchover", "state": True}]}
        )
    source.monitor.execute("migrate-set-parameters", {"max-bandwidth": 32 * MIB, "downtime-limit": 500})
    destination.monitor.execute("migrate-incoming", {"uri": f"unix:{socket}"})
    source.monitor.execute("migrate", {"uri": f"unix:{socket}"})
    source.migration("pre-switchover")
    source.save_memory()
    source.monitor.execute("migrate-continue", {"state": "pre-switchover"})
    source.migration("completed")
    destination.migration("completed")


@pytest.mark.parametrize("kind", KINDS)
def test_the_log_misses_no_write(kind: str, tmp_path: Path) -> None:
    with Target(tmp_path) as target:
        create(target, kind, size=DISK)
        with (tmp_path / f"{kind}.img").open("r+b") as file:
            file.seek(DISK // 2)
            file.write(PATTERN)
        disk = replace(KINDS[kind], socket=target.socket(kind))
        with (
            Machine(tmp_path, "source", [disk]) as source,
            Machine(tmp_path, "destination", [disk], Disposal(waits=True)) as destination,
        ):
            with load(source, [kind], AREA) as rounds:
                until = time.monotonic() + 60
                while not rounds:
                    assert time.monotonic() < until, source.last_words()
                    time.sleep(0.05)
                migrate(source, destination, tmp_path / "stream")
                missed = differing_pages(source.path("memory"), destination.save_memory())
                assert missed == [], f"{len(missed)} pages were not sent: {missed[:10]}"
                destination.monitor.execute("cont")
                source.end()
            # The probe was in the middle of a call of the source's; its next answers are for us.
            destination.probe.wait_until_up(deadline=30)
            node = destination.node(kind)
            expected = hashlib.sha256(PATTERN).hexdigest()
            assert destination.digest(node, DISK // 2, len(PATTERN)) == expected
            answer = destination.probe.call("write_pattern", deadline=60, device=node, offset=0, length=AREA, seed=77)
            assert answer["matches"]
