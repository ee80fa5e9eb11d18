"""`nvlane host setup`, `status` and `reset`: pages and drivers without a machine, and everything back exactly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import nvlane, nvlane_alone, unchanged, write_spec
from lab_drives import address, driver_of, unmounted

pytestmark = pytest.mark.lab

POOLS = Path("/sys/devices/system/node")
PAGES = "hugepages/hugepages-2048kB/nr_hugepages"


def pages(node: int) -> int:
    return int((POOLS / f"node{node}" / PAGES).read_text())


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Each test ends with a reset, and the host is then as it was: drivers, overrides, pools, mounts, modules."""
    with unchanged():
        yield
        nvlane("host", "reset").ok()


def test_pages_on_one_node_and_a_drive_for_vfio(tmp_path: Path) -> None:
    drive, before = address("LABDRIVE1"), (pages(0), pages(1))
    said = nvlane_alone("host", "setup", "--hugepages", "70", "--node", "0", "--drive", "serial:LABDRIVE1").ok()
    assert "holds ext4" in said.err
    assert (pages(0), pages(1)) == (max(70, before[0]), before[1])
    assert driver_of(drive) == "vfio-pci"
    status = nvlane("host", "status", "--json").ok().json
    assert {"address": drive, "serial": "LABDRIVE1", "driver": "vfio-pci"} in status["drives"]
    assert any("LABDRIVE1" in line for line in status["to_undo"])

    # A machine takes the pages that are free and the drive that is prepared, and leaves both as they were set up.
    lane = 'kind = "passthrough"\ndrive = "serial:LABDRIVE1"'
    spec = write_spec(tmp_path, "prepared", lane, memory="128MiB", node=0)
    with unchanged():
        assert "hugepages that are free" in nvlane("up", "--no-verify", spec).ok().err
        undo = nvlane("status", "prepared", "--json").ok().json["to_undo"]
        assert not any(step.startswith(("bind", "reserve")) for step in undo)
        nvlane("down", "prepared").ok()

    nvlane("host", "reset").ok()
    assert (pages(0), pages(1)) == before
    assert driver_of(drive) == "nvme"


def test_memory_over_all_nodes_and_a_second_setup() -> None:
    before = pages(0) + pages(1)
    nvlane("host", "setup", "--hugemem", "128").ok()
    assert (pages(0), pages(1)) == (32, 32)
    assert "hugetlbfs" in Path("/proc/mounts").read_text()
    assert "everything is there already" in nvlane("host", "setup", "--hugemem", "128").ok().err
    nvlane("host", "setup", "--hugemem", "160").ok()
    assert (pages(0), pages(1)) == (40, 40)
    nvlane("host", "reset").ok()
    assert pages(0) + pages(1) == before
    assert "nothing was set up" in nvlane("host", "reset").ok().err


def test_every_idle_drive_and_none_in_use() -> None:
    said = nvlane("host", "setup", "--all-idle", "--json").ok()
    status = {one["serial"]: one["driver"] for one in nvlane("host", "status", "--json").ok().json["drives"]}
    idle = {"LABDRIVE1", "LABDRIVE2", "LABVF", "LABSPARE"}
    busy = {"LABROOT", "LABMOUNT", "LABSIBA", "LABSIBB"}
    assert {status[serial] for serial in idle} == {"vfio-pci"}
    assert {status[serial] for serial in busy} == {"nvme"}
    assert all(f"({serial}) is left" in said.err for serial in busy)


def test_uio_for_those_who_name_it() -> None:
    drive = address("LABSPARE")
    nvlane("host", "setup", "--drive", drive, "--driver", "uio_pci_generic").ok()
    assert driver_of(drive) == "uio_pci_generic"
    nvlane("host", "reset").ok()
    assert driver_of(drive) == "nvme"


def test_siblings_of_a_drive_go_along() -> None:
    with unmounted("/srv/sibling"):
        drives = (address("LABSIBA"), address("LABSIBB"))
        nvlane("host", "setup", "--drive", "serial:LABSIBA").ok()
        assert [driver_of(drive) for drive in drives] == ["vfio-pci", "vfio-pci"]
        nvlane("host", "reset").ok()
        assert [driver_of(drive) for drive in drives] == ["nvme", "nvme"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--drive", "serial:LABMOUNT"), "drive-mount"),
        (("--drive", "serial:LABSIBA"), "sibling-in-use"),
        (("--drive", "serial:LABROOT", "--driver", "uio_pci_generic"), "drive-root"),
        (("--drive", "serial:NOSUCH"), "no-drive"),
        (("--hugepages", "40000", "--node", "0"), "hugepages-short"),
    ],
)
def test_refused(arguments: tuple[str, ...], code: str) -> None:
    with unchanged():
        said = nvlane("host", "setup", "--json", *arguments)
    assert said.status == 3, str(said)
    assert code in [one["code"] for one in said.json["error"]["refusals"]]


def test_dry_run_changes_nothing() -> None:
    with unchanged():
        plan = nvlane("host", "setup", "--dry-run", "--json", "--drive", "serial:LABDRIVE1").ok().json
    assert any("LABDRIVE1" in text for text in plan["descriptions"])
