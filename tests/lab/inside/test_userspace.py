"""The userspace lane in the lab: QEMU's own driver behind each of the five front ends, in one guest on hugepages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, nvlane, write_spec
from lab_drives import unmounted

from nvlane.qemu.inspect import device_ids
from nvlane.verify.guest import GuestFault

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with unmounted("/srv/sibling"):
        spec = write_spec(
            tmp_path_factory.mktemp("userspace"),
            "userspace",
            'kind = "userspace"\nname = "blk"\ndrive = "serial:LABDRIVE1"\nread_only = true',
            'kind = "userspace"\nname = "scsi"\ndrive = "serial:LABDRIVE2"\nnamespace = 2\n'
            'frontend = "virtio-scsi"\nwrite_proof = true',
            'kind = "userspace"\nname = "nvme"\ndrive = "serial:LABSPARE"\nfrontend = "nvme"\nwrite_proof = true',
            'kind = "userspace"\nname = "sata"\ndrive = "serial:LABVF"\nfrontend = "sata"\nwrite_proof = true',
            memory_backing="hugepages",
            node=0,
        )
        with machine(spec) as running:
            yield running


def test_claims_are_true_for_each_front_end(up: Up) -> None:
    assert up.wrong() == []
    assert {piece["lane"] for piece in up.value["evidence"] if "SHA-256" in piece["claim"]} == {
        "blk",
        "scsi",
        "nvme",
        "sata",
    }


def test_blocks_of_4096_bytes_stay(up: Up) -> None:
    assert up.found("scsi", "block bytes") == "4096"


def test_read_only_is_seen_and_kept(up: Up) -> None:
    assert up.found("blk", "read-only") == "True"
    path = next(piece["claim"].split()[0] for piece in up.value["evidence"] if piece["lane"] == "blk")
    with up.guest() as guest, pytest.raises(GuestFault):
        guest.call("write_pattern", device=path, offset=64 * MIB, length=4096, seed=1)


def test_guest_memory_is_on_reserved_hugepages(up: Up) -> None:
    status = up.status()
    assert "reserve 128 hugepages of 2MiB on node 0" in status["to_undo"]
    sizes = {int(field(line)) for line in smaps(status["pid"]) if line.startswith("Private_Hugetlb:")}
    sizes |= {int(field(line)) for line in smaps(status["pid"]) if line.startswith("Shared_Hugetlb:")}
    assert 256 * 1024 in sizes  # kB


def smaps(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/smaps").read_text().splitlines()


def field(line: str) -> str:
    return line.split()[1]


def test_usb_disk_and_its_idle_sibling_are_plugged_into_the_running_guest(up: Up, tmp_path: Path) -> None:
    """The guest's kernel has no driver for USB, so what QEMU shows is all that can be seen here of this front end."""
    lane = tmp_path / "usb.toml"
    lane.write_text('[[lane]]\nkind = "userspace"\nname = "usb"\ndrive = "serial:LABSIBA"\nfrontend = "usb"\n')
    plugged = nvlane("attach", up.name, lane, "--no-verify", "--json").ok()
    assert "shares IOMMU group" in plugged.err
    assert sum("LABSIB" in step for step in up.status()["to_undo"]) == 2
    with up.monitor() as monitor:
        assert {"usb", "usb-disk"} <= device_ids(monitor)
        (disk,) = [one for one in monitor.execute("query-block") if "usb-disk" in one["qdev"]]
        assert disk["inserted"]["node-name"] == "usb-drive"
        assert disk["inserted"]["image"]["virtual-size"] == 512 * MIB
    nvlane("detach", up.name, "usb").ok()
    assert not any("LABSIB" in step for step in up.status()["to_undo"])
