"""The emulated lane in the lab: every feature of QEMU's controller, in one guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, write_spec
from lab_drives import node

from nvlane.apply import process
from nvlane.qemu.inspect import guest_pci_address
from nvlane.verify.guest import GuestFault

pytestmark = pytest.mark.lab

ZONES = '{ zone_size = "8MiB", zone_capacity = "4MiB", max_open = 4, max_active = 6 }'


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("emulated")
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", str(work / "old.qcow2"), "96M"])
    return write_spec(
        work,
        "emulated",
        f"""
kind = "emulated"
name = "zoned"
serial = "ZONED"
write_proof = true
namespaces = [
  {{ image = "{work}/zoned.raw", size = "64MiB", block_size = 4096, nsid = 3, zoned = {ZONES} }},
  {{ image = "{work}/old.qcow2", uuid = "5a1bb3ec-0f2b-4a52-9f1e-7a0c3a1c9d11" }},
]""",
        f"""
kind = "emulated"
name = "fdp"
fdp = {{ handles = 4, reclaim_unit = "32MiB" }}

[[lane.namespaces]]
image = "{work}/fdp.raw"
size = "64MiB"
block_size = 4096
metadata_size = 8
protection = 1
handles = [1, 3]
""",
        f"""
kind = "emulated"
name = "sriov"
vfs = 2
namespaces = [{{ image = "{work}/sriov.raw", size = "32MiB" }}]
""",
        f"""
kind = "emulated"
name = "buffers"
nqn = "nqn.2019-08.org.qemu:lab"
cmb = "16MiB"
pmr = "16MiB"
pmr_file = "{work}/pmr.raw"
namespaces = [{{ image = "{work}/buffers.raw", size = "32MiB" }}]
write_proof = true
""",
        f"""
kind = "emulated"
name = "device"
queues = 2
namespaces = [{{ device = "{node("LABSPARE")}", read_only = true }}]
""",
    )


@pytest.fixture(scope="module")
def up(spec: Path) -> Iterator[Up]:
    with machine(spec) as running:
        yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []
    assert {lane["name"] for lane in up.value["lanes"]} == {"zoned", "fdp", "sriov", "buffers", "device"}


def test_subsystem(up: Up) -> None:
    assert up.found("buffers", "subsystem") == "nqn.2019-08.org.qemu:lab"


def test_zoned_namespace_beside_a_plain_one(up: Up) -> None:
    zones = [piece for piece in up.value["evidence"] if piece["lane"] == "zoned" and "zones" in piece["claim"]]
    assert {piece["found"] for piece in zones} == {"host-managed", "none"}
    with up.guest() as guest:
        by_nsid = {ns["nsid"]: ns for ns in guest.inventory()["nvme"]["namespaces"] if ns["name"] in str(zones)}
    zoned, other = by_nsid[3], by_nsid[1]
    assert (zoned["zone_bytes"], zoned["nr_zones"]) == (8 * MIB, 8)
    assert (zoned["max_open_zones"], zoned["max_active_zones"]) == (4, 6)
    assert other["size_bytes"] == 96 * MIB
    # Linux leaves UUIDs of QEMU's controllers aside (drivers/nvme/host/pci.c, NVME_QUIRK_BOGUS_NID).
    with up.monitor() as monitor:
        told = monitor.execute("qom-get", {"path": "/machine/peripheral/zoned-ns1", "property": "uuid"})
    assert told == "5a1bb3ec-0f2b-4a52-9f1e-7a0c3a1c9d11"


def test_flexible_data_placement_and_protection(up: Up) -> None:
    with up.guest() as guest:
        protected = [ns for ns in guest.inventory()["nvme"]["namespaces"] if ns["pi"]]
    assert [(ns["metadata_bytes"], ns["pi"]) for ns in protected] == [(8, "T10-DIF-TYPE1-CRC")]
    with up.monitor() as monitor:
        subsystem = {"path": "/machine/peripheral/fdp-subsys"}
        assert monitor.execute("qom-get", {**subsystem, "property": "fdp"}) is True
        assert monitor.execute("qom-get", {**subsystem, "property": "fdp.nruh"}) == 4


def test_virtual_functions_are_offered(up: Up) -> None:
    with up.monitor() as monitor:
        function = guest_pci_address(monitor, "sriov")
    assert up.read(f"/sys/bus/pci/devices/{function}/sriov_totalvfs").strip() == "2"


def test_controller_memory_buffer_and_persistent_memory_region(up: Up) -> None:
    with up.monitor() as monitor:
        function = guest_pci_address(monitor, "buffers")
    bars = [
        int(end, 16) - int(start, 16) + 1
        for start, end, _ in map(str.split, up.read(f"/sys/bus/pci/devices/{function}/resource").splitlines())
    ]
    # QEMU hw/nvme/nvme.h: the CMB is behind BAR 2, the PMR behind BAR 4.
    assert (bars[2], bars[4]) == (16 * MIB, 16 * MIB)
    with up.monitor() as monitor:
        memory = {dev["id"]: dev for dev in monitor.execute("query-memdev")}
    assert memory["buffers-pmr"]["size"] == 16 * MIB


def test_block_device_of_the_host_read_only(up: Up) -> None:
    with up.guest() as guest:
        (name,) = [c["name"] for c in guest.inventory()["nvme"]["controllers"] if c["serial"] == "emulated-device"]
    assert "SHA-256" in str([piece["claim"] for piece in up.value["evidence"] if piece["lane"] == "device"])
    assert "does not tell the guest that it is read-only" in up.said.err
    with up.guest() as guest:
        pattern = {"device": f"/dev/{name}n1", "offset": 8 * MIB, "length": 4096, "seed": 1}
        with pytest.raises(GuestFault, match=f"write /dev/{name}n1"):
            guest.call("write_pattern", **pattern)
    # The kernel asks for one queue pair a processor, and the guest has one.
    assert up.read(f"/sys/class/nvme/{name}/queue_count").strip() == "2"


def test_the_lane_in_use_is_in_the_status(up: Up) -> None:
    status = up.status()
    assert status["state"] == "up"
    assert any("start emulated" in step for step in status["to_undo"])
