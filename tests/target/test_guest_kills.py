"""The target is killed while a guest writes and verifies, and started again with what it had saved: the guest sees a
pause, and not an error nor a wrong byte.

NVLANE_KILLS says how often each kind of disk has to live through it; `make test-kill` asks for a hundred.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from machine_room import KINDS, MIB, Room, room
from target_process import program

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(program() is None, reason="nvlane-target has not been built (tools/prepare)"),
]

KILLS = int(os.environ.get("NVLANE_KILLS", "15"))
STOPS = 12
"""What QEMU finds when a target ends of itself depends on a moment: once in some ten stops it was the wrong one."""
AREA = 8 * MIB


def begin_fio(machine: Room, kind: str) -> int:
    """Writes and reads back, over and over, until the file /tmp/stop is there; then once more everything."""
    node = machine.guest.block(kind)
    fio = (
        f"fio --name=t --filename={node} --size={AREA} --bsrange=4k-32k --blockalign=4k --ioengine=libaio --direct=1 "
        f"--iodepth=16 --verify=crc32c --verify_fatal=1 --output=/tmp/fio-{kind}"
    )
    # --verify_backlog reads blocks back soon after they were written, the last pass of each round all of them.
    script = f"""
        round=0
        while [ ! -e /tmp/stop ]; do
            round=$((round + 1))
            {fio} --rw=randwrite --verify_backlog=32 --randseed=$round || {{ cat /tmp/fio-{kind}; exit 1; }}
        done
        echo $round
    """
    return machine.guest.begin("sh", "-ec", script)


def connected(machine: Room, kinds: tuple[str, ...]) -> bool:
    """Whether QEMU is back on every controller."""
    controllers = machine.target.call("vhost_get_controllers")
    return {each["ctrlr"] for each in controllers if each["sessions"]} >= set(kinds)


def requests(machine: Room) -> dict[str, int]:
    """How many reads and writes each bdev has had since the target's start."""
    bdevs = machine.target.call("bdev_get_iostat")["bdevs"]
    return {bdev["name"]: bdev["num_read_ops"] + bdev["num_write_ops"] for bdev in bdevs}


def wait_until_back(machine: Room, kinds: tuple[str, ...], least: int) -> None:
    """Until QEMU is back on every controller and each disk has had `least` requests again."""
    until = time.monotonic() + 30
    while not (connected(machine, kinds) and min(requests(machine).values()) >= least):
        assert time.monotonic() < until, f"{requests(machine)} of {least}\n{machine.target.last_words()}"
        time.sleep(0.005)


def live_through(machine: Room, kinds: tuple[str, ...], kills: int) -> None:
    chance = random.Random(kills)
    running = {kind: begin_fio(machine, kind) for kind in kinds}
    started, served = time.monotonic(), 0
    for _ in range(kills):
        wait_until_back(machine, kinds, least=chance.randrange(1, 100))
        served += sum(requests(machine).values())
        machine.target.kill()
        machine.target.start()
    took = time.monotonic() - started
    wait_until_back(machine, kinds, least=1)
    machine.guest.run("touch", "/tmp/stop")
    rounds = {kind: int(machine.guest.wait(number, deadline=180)) for kind, number in running.items()}
    print(f"{kills} kills in {took:.0f} s, {served} requests between them; rounds of fio: {rounds}")
    assert machine.guest.complaints() == []
    for kind in kinds:
        assert machine.guest_digest(kind, AREA) == machine.digest(kind, AREA)


@pytest.mark.parametrize("frontend", ["blk", "scsi"])
def test_nothing_is_lost_when_it_is_killed(frontend: str, tmp_path: Path) -> None:
    kinds = tuple(kind for kind in KINDS if kind.startswith(frontend))
    with room(tmp_path, kinds) as machine:
        live_through(machine, kinds, KILLS)


def test_another_program_takes_over(tmp_path: Path) -> None:
    """An upgrade: the running target is asked to end, and a program at another path goes on with its state."""
    kinds = ("blk-split", "scsi-packed")
    with room(tmp_path, kinds) as machine:
        running = {kind: begin_fio(machine, kind) for kind in kinds}
        before = machine.target.call("bdev_get_bdevs")
        wait_until_back(machine, kinds, least=50)
        chance = random.Random(STOPS)
        for _ in range(STOPS):
            assert machine.target.stop() == 0, machine.target.last_words()
            machine.target.replaced_by(machine.target.binary)
            machine.target.start()
            wait_until_back(machine, kinds, least=chance.randrange(1, 60))
        assert machine.target.call("bdev_get_bdevs") == before
        machine.guest.run("touch", "/tmp/stop")
        for number in running.values():
            machine.guest.wait(number, deadline=120)
        assert machine.guest.complaints() == []
        for kind in kinds:
            assert machine.guest_digest(kind, AREA) == machine.digest(kind, AREA)
