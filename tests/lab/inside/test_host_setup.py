"""`nvlane host` on a real host: pools, mounts and drivers, and everything back as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from at_work import HOST, MIB, nvlane, unchanged

from nvlane.facts.hugepages import read_pools

pytestmark = pytest.mark.lab

DRIVERS = Path("/sys/bus/pci/devices")


def _drives() -> dict[str, dict[str, str]]:
    return {drive["serial"]: drive for drive in nvlane("host", "status", "--json").ok().json["drives"]}


def _pages() -> dict[int, int]:
    return {pool.node: pool.total for pool in read_pools(HOST) if pool.page_size == 2 * MIB}


def test_pages_and_idle_drives_and_back() -> None:
    before = _pages()
    with unchanged():
        nvlane("host", "setup", "--hugemem", "32", "--size", "2MiB", "--all-idle").ok()
        assert sum(_pages().values()) >= 16
        drives = _drives()
        assert drives["LABSPARE"]["driver"] == "vfio-pci"
        # The root, the mounted one, and both of the group of which one is mounted.
        for serial in ("LABROOT", "LABMOUNT", "LABSIBA", "LABSIBB"):
            assert drives[serial]["driver"] == "nvme"
        more = nvlane("host", "setup", "--hugemem", "64", "--size", "2MiB", "--json").ok().json
        assert not any("bind" in text for text in more["descriptions"])
        assert sum(_pages().values()) >= 32
        assert nvlane("status", "--json").ok().json[0]["state"] == "prepared"
        nvlane("host", "reset").ok()
    assert _pages() == before


def test_a_drive_by_serial_to_uio() -> None:
    """Without protection by an IOMMU, and only when it is asked for by name."""
    with unchanged():
        nvlane("host", "setup", "--drive", "serial:LABSPARE", "--driver", "uio_pci_generic").ok()
        spare = _drives()["LABSPARE"]
        assert spare["driver"] == "uio_pci_generic"
        assert (DRIVERS / spare["address"] / "driver").resolve().name == "uio_pci_generic"
        nvlane("host", "reset").ok()


@pytest.mark.parametrize(
    ("serial", "code"), [("LABROOT", "drive-root"), ("LABMOUNT", "drive-mount"), ("LABSIBA", "sibling-in-use")]
)
def test_drives_in_use_are_refused(serial: str, code: str) -> None:
    with unchanged():
        said = nvlane("host", "setup", "--drive", f"serial:{serial}", "--json")
        assert said.status == 3
        assert code in {refusal["code"] for refusal in said.json["error"]["refusals"]}


def test_more_pages_than_there_is_memory() -> None:
    with unchanged():
        said = nvlane("host", "setup", "--hugemem", str(1 << 20), "--size", "2MiB")
        assert said.status == 3
        assert "[hugepages-short]" in said.err


def test_what_host_setup_holds_a_machine_may_use() -> None:
    """A drive that is on vfio-pci already is found by its serial, and stays there when the machine goes."""
    with unchanged():
        nvlane("host", "setup", "--drive", "serial:LABSPARE").ok()
        devices = {drive["serial"]: drive for drive in nvlane("devices", "--json").ok().json}
        assert devices["LABSPARE"]["remembered"]
        assert devices["LABSPARE"]["namespaces"]
        nvlane("host", "reset").ok()
