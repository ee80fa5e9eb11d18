"""The matrix of lanes (src/nvlane/advise), shown, second part: what VFIO has no part in. A namespace of another host,
the host's persistent memory, and virtio-pmem on a file, in one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import BLOCK_QUESTIONS, disk_of, refused
from at_work import MIB, Up, nvlane, write_spec
from fabric_room import FIRST, NQN, NVMET, at_target, exported, fabrics_lane, networks, target_files
from lab_drives import wait
from lab_pmem import as_dax_device
from matrix_machine import against, becomes_idle, disk, node, queues, reset, unwatched, wrong

from nvlane.qemu.inspect import chardevs, memory_devices, status

pytestmark = pytest.mark.lab

LANES = ("fabrics", "nvdimm-dax", "virtio-pmem")
MEMORY = ("nvdimm-dax", "virtio-pmem")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fabrics")


@pytest.fixture(scope="module")
def files(work: Path) -> list[Path]:
    return target_files(work)


@pytest.fixture(scope="module")
def up(work: Path, files: list[Path]) -> Iterator[Up]:
    words = [word for file in files for word in ("--file", str(file))]
    with networks(), exported(*words, "--address", FIRST), as_dax_device() as memory:
        lanes = {
            "fabrics": _namespace(1),
            "nvdimm-dax": f'kind = "nvdimm"\nbacking = "dax"\npath = "{memory}"',
            "virtio-pmem": f'kind = "nvdimm"\nbacking = "file"\npath = "{work}/pmem.raw"\nsize = "32MiB"',
        }
        with unwatched(work, lanes, cpus=2, node=0) as running:
            yield running


def _namespace(number: int) -> str:
    table = fabrics_lane("fabrics", address=FIRST, namespace=number, write_proof=False)
    return "\n".join(line for line in table.splitlines() if not line.startswith("name ="))


@pytest.mark.parametrize("question", ["snapshot", "mirror", "backup", "throttle"])
@pytest.mark.parametrize("lane", ["fabrics"])
def test_qemu_does_it(up: Up, work: Path, lane: str, question: str) -> None:
    with up.monitor() as monitor:
        BLOCK_QUESTIONS[question](disk(monitor, lane, work))
        assert status(monitor) == "running"


@pytest.mark.parametrize("question", list(BLOCK_QUESTIONS))
@pytest.mark.parametrize("lane", ["nvdimm-dax"])
def test_qemu_has_nothing_of_it_in_its_block_layer(up: Up, work: Path, lane: str, question: str) -> None:
    with up.monitor() as monitor:
        assert disk_of(monitor, lane, work) is None
        refused(monitor, lane, question)


@pytest.mark.parametrize("lane", LANES)
def test_what_is_said_against_its_migration(up: Up, lane: str) -> None:
    """Nothing, of any of them."""
    assert lane in {one["name"] for one in up.status()["lanes"]}
    assert against(up) == []


@pytest.mark.parametrize("lane", ["fabrics"])
def test_two_machines_have_parts_of_one_drive(up: Up, work: Path, lane: str) -> None:
    """Two namespaces of one subsystem, over one connection."""
    second = write_spec(work, "second", f'name = "{lane}"\n{_namespace(2)}', memory="64MiB")
    nvlane("up", "--no-verify", second).ok()
    try:
        assert nvlane("status", "second", "--json").ok().json["state"] == "up"
        assert up.status()["state"] == "up"
    finally:
        nvlane("down", "--shutdown", "0", "second").ok()


@pytest.mark.parametrize("lane", LANES)
def test_idle_it_takes_no_processor(up: Up, lane: str) -> None:
    with up.monitor() as monitor:
        assert f"{lane}-link" not in {one.id for one in chardevs(monitor)}
    becomes_idle(up, [int(up.status()["pid"])])


@pytest.fixture(scope="module")
def booted(up: Up) -> Up:
    assert wrong(up) == []
    return up


@pytest.mark.parametrize("lane", ["fabrics"])
def test_queues(booted: Up, lane: str) -> None:
    assert queues(booted, lane) == 2


@pytest.mark.parametrize("lane", ["fabrics"])
def test_discard(booted: Up, lane: str) -> None:
    assert int(booted.read(f"/sys/block/{node(booted, lane)}/queue/discard_max_bytes")) > 0


@pytest.mark.parametrize("lane", ["fabrics"])
def test_the_guest_sees_that_it_has_grown(booted: Up, work: Path, files: list[Path], lane: str) -> None:
    """The file at the Target grows, the Target and QEMU are told, and the guest sees it without a reboot."""
    name, larger = node(booted, lane), 96 * MIB
    assert int(booted.read(f"/sys/block/{name}/size")) * 512 == 64 * MIB
    with files[0].open("r+b") as file:
        file.truncate(larger)
    with at_target():
        (NVMET / "subsystems" / NQN / "namespaces/1/revalidate_size").write_text("1")
    (device,) = [
        space["device"]
        for one in nvlane("fabrics", "list", "--json").ok().json["connections"]
        for space in one["namespaces"]
        if space["nsid"] == 1
    ]
    size = Path("/sys/block", Path(device).name, "size")
    wait("this host sees it", lambda: int(size.read_text()) * 512 == larger, 60)
    with booted.monitor() as monitor:
        monitor.execute("block_resize", {"node-name": disk(monitor, lane, work).node, "size": larger})
    wait("the guest sees it", lambda: int(booted.read(f"/sys/block/{name}/size")) * 512 == larger, 60)


@pytest.fixture(scope="module")
def again(booted: Up) -> list[dict[str, Any]]:
    return reset(booted)


@pytest.mark.parametrize("lane", MEMORY)
def test_after_a_reboot(again: list[dict[str, Any]], lane: str) -> None:
    ours = [piece for piece in again if piece["lane"] == lane]
    assert ours
    assert [piece for piece in ours if not piece["ok"]] == []


@pytest.mark.parametrize("lane", ["fabrics"])
def test_a_disk_after_a_reboot(booted: Up, again: list[dict[str, Any]], lane: str) -> None:
    """By its size: it has grown since it was claimed."""
    assert again
    assert int(booted.read(f"/sys/block/{node(booted, lane)}/size")) * 512 == 96 * MIB


@pytest.mark.parametrize("lane", MEMORY)
def test_it_stays(booted: Up, lane: str) -> None:
    """A guest cannot be made to let go of memory."""
    said = nvlane("detach", booted.name, lane)
    assert said.status in (1, 3), str(said)
    assert lane in {one["name"] for one in booted.status()["lanes"]}


@pytest.mark.parametrize("lane", ["fabrics"])
def test_out_and_in(booted: Up, work: Path, lane: str) -> None:
    nvlane("detach", booted.name, lane).ok()
    assert lane not in {one["name"] for one in booted.status()["lanes"]}
    table = work / "again.toml"
    table.write_text(f'[[lane]]\nname = "{lane}"\n{_namespace(3)}\n')
    said = nvlane("attach", booted.name, table, "--json").ok().json
    assert [piece for piece in said["evidence"] if piece["lane"] == lane and not piece["ok"]] == []


@pytest.mark.parametrize("lane", ["virtio-pmem"])
def test_in(booted: Up, work: Path, lane: str) -> None:
    """Another one, into the running machine."""
    table = work / "more.toml"
    table.write_text(
        f'[[lane]]\nkind = "nvdimm"\nname = "more"\nbacking = "file"\npath = "{work}/more.raw"\nsize = "32MiB"\n'
    )
    said = nvlane("attach", booted.name, table, "--json").ok().json
    ours = [piece for piece in said["evidence"] if piece["lane"] == "more"]
    with booted.monitor() as monitor:
        assert {one.id: one.kind for one in memory_devices(monitor)}["more"] == lane
    assert [piece for piece in ours if not piece["ok"]] == []
