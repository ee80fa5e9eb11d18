"""The vhost-user lane with qemu-storage-daemon in the lab: a drive, a file and nothing, each behind one of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest
from at_work import Up, machine, nvlane, write_spec

from nvlane.apply import process

pytestmark = pytest.mark.lab

LANE = 'kind = "vhost-user"\nengine = "qemu-storage-daemon"\n'


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("daemon")
    spec = write_spec(
        work,
        "daemon",
        f'{LANE}name = "drive"\ndrive = "serial:LABSPARE"\nqueues = 2\nwrite_proof = true',
        f'{LANE}name = "new"\nfile = "{work}/new.raw"\nsize = "64MiB"\nwrite_proof = true',
        f'{LANE}name = "null"\nnull = "1GiB"\nblock_size = 4096',
    )
    with machine(spec) as running:
        yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


def test_queues_are_equal_on_both_ends(up: Up) -> None:
    with up.monitor() as monitor:
        asked = monitor.execute("qom-get", {"path": "/machine/peripheral/drive", "property": "num-queues"})
    arguments = " ".join(process.run(["ps", "-ww", "-o", "args=", "-C", "qemu-storage-daemon"]).stdout.split())
    served = {int(number) for number in re.findall(r'num-queues"?[=:]\s?(\d+)', arguments)}
    assert asked == 2
    assert asked in served


def test_targets_are_processes_of_their_own(up: Up) -> None:
    targets = [step for step in up.status()["to_undo"] if step.startswith("start the qemu-storage-daemon target")]
    assert len(targets) == 3
    running = process.run(["pgrep", "-f", "^[^ ]*qemu-storage-daemon"]).stdout.split()
    assert len(running) == 3
    assert all(int(pid) != os.getpid() for pid in running)


def test_it_is_not_replaced_under_a_guest(up: Up) -> None:
    """It keeps nothing of what is in flight, and QEMU was not told to connect again."""
    said = nvlane("target", "restart", f"{up.name}.new")
    assert said.status == 1
    assert "would lose its disk" in said.err
