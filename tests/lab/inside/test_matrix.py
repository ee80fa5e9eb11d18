"""The matrix of lanes (src/nvlane/advise), shown: one machine with a lane of every kind that needs a drive. While its
guest boots, QEMU is asked what it does for each and what it refuses; then the guest is looked at, reset, and loses
lane by lane.

Lanes are named as the rows of the matrix are. What needs no drive and no guest is asked in
tests/cli/test_matrix_asked.py. virtio-pmem on a file is not among them: beside a lane of VFIO's, QEMU cannot lock it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import BLOCK_QUESTIONS, blocked, disk_of, refused
from at_work import MIB, Up, nvlane, write_spec
from lab_drives import unmounted, virtual_functions, wait
from matrix_machine import against, becomes_idle, disk, node, queues, reset, unwatched, wrong

from nvlane.qemu.inspect import chardevs, status
from nvlane.wire.qmp import Qmp, QmpError

pytestmark = pytest.mark.lab

LANES = {
    "emulated": 'kind = "emulated"\nnamespaces = [{{ image = "{work}/emulated.qcow2", size = "64MiB" }}]',
    "passthrough": 'kind = "passthrough"\ndrive = "serial:LABDRIVE2"',
    "passthrough-vf": 'kind = "passthrough"\ndrive = "serial:LABVF/vf0"',
    "userspace": 'kind = "userspace"\ndrive = "serial:LABDRIVE1"',
    "userspace-nvme": 'kind = "userspace"\ndrive = "serial:LABSPARE"\nfrontend = "nvme"',
    "vhost-user-drive": 'kind = "vhost-user"\ndrive = "serial:LABSIBA"',
    "vhost-user-file": 'kind = "vhost-user"\nfile = "{work}/nvlane.raw"\nsize = "64MiB"',
    "vhost-user-daemon": 'kind = "vhost-user"\nengine = "qemu-storage-daemon"\nfile = "{work}/qsd.raw"\nsize = "64MiB"',
    "nvdimm-memory": 'kind = "nvdimm"\nbacking = "memory"\nsize = "32MiB"',
}
VHOST = ("vhost-user-drive", "vhost-user-file", "vhost-user-daemon")
BLOCK = ("userspace", "userspace-nvme")
NVME = ("emulated", "passthrough", "userspace-nvme")
#: Lanes that a running machine keeps: memory that no guest lets go of, and namespaces that QEMU cannot unplug.
STAY = ("emulated", "nvdimm-memory")
#: What QEMU says against the migration of a machine with such a lane. Of all others it says nothing.
AGAINST = {
    "emulated": "/nvme",
    "userspace-nvme": "/nvme",
    "passthrough": "VFIO migration is not supported",
    "passthrough-vf": "VFIO migration is not supported",
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matrix")


@pytest.fixture(scope="module")
def up(work: Path) -> Iterator[Up]:
    lanes = {name: text.format(work=work) for name, text in LANES.items()}
    with virtual_functions("LABVF", 2), unmounted("/srv/sibling"), unwatched(work, lanes, cpus=2, node=0) as running:
        yield running


@pytest.mark.parametrize("question", ["snapshot", "mirror", "backup", "throttle"])
@pytest.mark.parametrize("lane", BLOCK)
def test_qemu_does_it(up: Up, work: Path, lane: str, question: str) -> None:
    with up.monitor() as monitor:
        BLOCK_QUESTIONS[question](disk(monitor, lane, work))
        assert status(monitor) == "running"


@pytest.mark.parametrize("lane", BLOCK)
def test_qemu_refuses_to_resize(up: Up, work: Path, lane: str) -> None:
    with up.monitor() as monitor, pytest.raises(QmpError, match=r"Cannot grow NVMe devices|'resize'"):
        disk(monitor, lane, work).resize()


@pytest.mark.parametrize("question", list(BLOCK_QUESTIONS))
@pytest.mark.parametrize("lane", ["passthrough", "passthrough-vf", "vhost-user-drive"])
def test_qemu_has_nothing_of_it_in_its_block_layer(up: Up, work: Path, lane: str, question: str) -> None:
    with up.monitor() as monitor:
        assert disk_of(monitor, lane, work) is None
        refused(monitor, lane, question)


@pytest.mark.parametrize("lane", ["passthrough", "passthrough-vf", *BLOCK])
def test_who_serves_it(up: Up, work: Path, lane: str) -> None:
    """A target, QEMU itself (it has a block node of it), or nobody."""
    with up.monitor() as monitor:
        assert f"{lane}-link" not in {one.id for one in chardevs(monitor)}
        assert (disk_of(monitor, lane, work) is not None) == (lane in BLOCK)


@pytest.mark.parametrize("lane", list(LANES))
def test_what_is_said_against_its_migration(up: Up, lane: str) -> None:
    """As many reasons as there are lanes of a kind that has one, and none besides; VFIO's name the function."""
    with up.monitor() as monitor:
        reasons = blocked(monitor)
        host = (
            monitor.execute("qom-get", {"path": f"/machine/peripheral/{lane}", "property": "host"})
            if (lane.startswith("passthrough"))
            else ""
        )
    assert len(reasons) == len(AGAINST)
    for kind in set(AGAINST.values()):
        assert sum(kind in reason for reason in reasons) == list(AGAINST.values()).count(kind)
    ours = [reason for reason in reasons if AGAINST.get(lane, lane) in reason and host in reason]
    assert bool(ours) == (lane in AGAINST)


@pytest.mark.parametrize("lane", ["passthrough", "userspace", "userspace-nvme", "vhost-user-drive"])
def test_a_second_machine_is_refused(up: Up, work: Path, lane: str) -> None:
    second = write_spec(work, "second", LANES[lane].format(work=work))
    said = nvlane("plan", "--json", second)
    assert said.status == 3, str(said)
    codes = {one["code"] for plan in said.json for one in plan["refusals"]}
    assert "drive-open" in codes, codes
    assert up.status()["state"] == "up"


@pytest.mark.parametrize("lane", ["passthrough-vf"])
def test_two_machines_have_parts_of_one_drive(up: Up, work: Path, lane: str) -> None:
    second = write_spec(work, "second", 'kind = "passthrough"\ndrive = "serial:LABVF/vf1"', memory="64MiB", cpus=1)
    before = up.status()["state"]
    nvlane("up", "--no-verify", second).ok()
    try:
        told = nvlane("status", "second", "--json").ok().json
        assert (before, told["state"], up.status()["state"]) == ("up", "up", "up")
        assert lane in {one["name"] for one in up.status()["lanes"]}
    finally:
        nvlane("down", "--shutdown", "0", "second").ok()


@pytest.mark.parametrize("lane", ["passthrough", "passthrough-vf", *BLOCK, "vhost-user-drive", "vhost-user-file"])
def test_idle_it_takes_no_processor(up: Up, lane: str) -> None:
    """QEMU, and the lane's target."""
    pids = [int(up.status()["pid"]), *_target(lane)]
    assert len(pids) == (2 if lane in VHOST else 1)
    becomes_idle(up, pids)


def _target(lane: str) -> list[int]:
    if lane not in VHOST:
        return []
    return [one["pid"] for one in nvlane("target", "status", "--json").ok().json if one["target"].endswith(f".{lane}")]


@pytest.fixture(scope="module")
def booted(up: Up) -> Up:
    """From here on the guest takes part."""
    assert wrong(up) == []
    return up


@pytest.mark.parametrize("lane", ["emulated", "passthrough", *BLOCK, *VHOST])
def test_queues(booted: Up, lane: str) -> None:
    """One for each of the guest's two processors."""
    assert queues(booted, lane) >= 2


@pytest.mark.parametrize("lane", ["emulated", "passthrough", *BLOCK, "vhost-user-drive", "vhost-user-daemon"])
def test_discard(booted: Up, lane: str) -> None:
    assert int(booted.read(f"/sys/block/{node(booted, lane)}/queue/discard_max_bytes")) > 0


@pytest.fixture(scope="module")
def again(booted: Up) -> list[dict[str, Any]]:
    return reset(booted)


@pytest.mark.parametrize("lane", list(LANES))
def test_after_a_reboot(again: list[dict[str, Any]], lane: str) -> None:
    ours = [piece for piece in again if piece["lane"] == lane]
    assert ours
    assert [piece for piece in ours if not piece["ok"]] == []


@pytest.mark.parametrize("lane", ["vhost-user-daemon"])
def test_the_guest_sees_that_it_has_grown(booted: Up, again: list[dict[str, Any]], lane: str) -> None:
    """Through the daemon's own monitor. (After the reboot, for it is no longer as large as was claimed.)"""
    assert again
    name, larger = node(booted, lane), 80 * MIB
    with Qmp.connect(str(booted.runtime / lane / "qmp.sock")) as daemon:
        daemon.execute("block_resize", {"node-name": "disk0", "size": larger})
    wait("the guest sees it", lambda: int(booted.read(f"/sys/block/{name}/size")) * 512 == larger, 60)


@pytest.mark.parametrize("lane", ["emulated"])
def test_a_namespace_of_the_start_stays(booted: Up, lane: str) -> None:
    """QEMU has no hot-unplug for it, and would keep its image open: it is refused, and the controller stays, too."""
    said = nvlane("detach", booted.name, lane)
    assert said.status == 1, str(said)
    assert "nvme-ns has no hot-unplug" in said.err
    assert [piece for piece in wrong(booted) if piece["lane"] == lane] == []


@pytest.mark.parametrize("lane", [lane for lane in LANES if lane not in STAY])
def test_out(booted: Up, lane: str) -> None:
    """Taken out of the running guest; and with it goes what QEMU had to say against the machine's migration."""
    gone = against(booted)
    nvlane("detach", booted.name, lane).ok()
    for reason in against(booted):
        gone.remove(reason)
    assert len(gone) == (lane in AGAINST), gone
    assert all(AGAINST[lane] in reason for reason in gone), gone


def test_what_is_left_is_what_stays(booted: Up) -> None:
    assert {lane["name"] for lane in booted.status()["lanes"]} == set(STAY)
    assert len(against(booted)) == len([lane for lane in STAY if lane in AGAINST])


@pytest.mark.parametrize("lane", ["passthrough-vf", "userspace-nvme", "vhost-user-daemon"])
def test_in_again(booted: Up, work: Path, lane: str) -> None:
    """Plugged into the running machine, and as claimed."""
    table = work / f"{lane}.toml"
    table.write_text(f'[[lane]]\nname = "{lane}-again"\n{LANES[lane].format(work=work / "again")}\n')
    (work / "again").mkdir(exist_ok=True)
    said = nvlane("attach", booted.name, table, "--json").ok().json
    ours = [piece for piece in said["evidence"] if piece["lane"] == f"{lane}-again"]
    assert ours
    assert [piece for piece in ours if not piece["ok"]] == []
