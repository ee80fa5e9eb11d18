"""Lanes with real VFIO on libvirt domains: into one that runs, into a definition, proven by the guest, out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import libvirt_host as libvirt
import pytest
from at_work import nvlane, unchanged
from fabric_room import FIRST, exported, fabrics_lane, networks, target_files
from lab_drives import address, driver_of

from nvlane.lab import libvirtd
from nvlane.lab.libvirtd import IMAGES, URI, defined, definition, virsh

pytestmark = pytest.mark.lab

HUGEPAGES = "<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages><access mode='shared'/></memoryBacking>"
#: For a domain that runs, one after the other.
LANES = {
    "pass": 'kind = "passthrough"\ndrive = "serial:LABDRIVE2"\nwrite_proof = true',
    "blk": 'kind = "userspace"\ndrive = "serial:LABSPARE"\nwrite_proof = true',
    "scsi": 'kind = "userspace"\ndrive = "serial:LABVF"\nfrontend = "virtio-scsi"\nwrite_proof = true',
    "vhost": 'kind = "vhost-user"\ndrive = "serial:LABDRIVE2"\nnamespace = 2\nwrite_proof = true',
    "emu": f'kind = "emulated"\nserial = "12345"\nwrite_proof = true\n'
    f'namespaces = [{{ image = "{IMAGES}/emu.qcow2", size = "64MiB" }}]',
}
#: For one that `up` starts, all at once.
TOGETHER = {
    "pass": LANES["pass"],
    "blk": LANES["blk"],
    "scsi": LANES["scsi"],
    "drive": 'kind = "vhost-user"\nfrontend = "virtio-scsi"\ndrive = "serial:LABDRIVE1"',
}


@pytest.fixture(scope="module", autouse=True)
def daemons() -> Iterator[None]:
    with libvirt.hugepages(192), libvirtd.daemons():
        yield


@pytest.fixture(scope="module")
def hot() -> Iterator[str]:
    """A domain that runs, on hugepages; its definition."""
    with libvirt.running("hot", memory=320, ports=6, extra=HUGEPAGES) as before:
        yield before


@pytest.mark.parametrize("name", LANES)
def test_into_a_running_domain_and_out(hot: str, name: str, tmp_path: Path) -> None:
    lane = libvirt.lane(tmp_path, name, LANES[name])
    with unchanged():
        said = nvlane("attach", "--json", "--connect", URI, "--yes", "hot", lane).ok()
        assert said.json["verified"] is True, str(said)
        # Of these front ends only QEMU's own disks are served from an iothread, unless the spec says no.
        assert bool(virsh("iothreadinfo", "hot").strip()) == ("userspace" in LANES[name])
        nvlane("detach", "--yes", "hot", name).ok()
        assert not virsh("iothreadinfo", "hot").strip()
        down = nvlane("down", "--json", "hot").ok().json[0]
    assert [proof["ok"] for proof in down["proofs"]] == [True]
    assert definition("hot") == hot


def test_a_namespace_of_a_fabric_into_a_running_domain_and_out(hot: str, tmp_path: Path) -> None:
    """What the guest wrote is read before the host is disconnected: at the detach, and by the Target."""
    lane = libvirt.lane(tmp_path, "fab", fabrics_lane("fab", address=FIRST).replace('name = "fab"\n', ""))
    with networks(), exported("--file", target_files(tmp_path)[0], "--address", FIRST):
        said = nvlane("attach", "--json", "--connect", URI, "--yes", "hot", lane).ok()
        assert said.json["verified"] is True, str(said)
        proofs = nvlane("detach", "--json", "--yes", "hot", "fab").ok().json["proofs"]
    assert [proof["ok"] for proof in proofs] == [True, True]
    assert definition("hot") == hot
    assert "hot" not in nvlane("status", "--json").ok().out


def test_up_on_a_definition_verified_and_down(tmp_path: Path) -> None:
    """A spec with `connect`: the domain gets all lanes, and shared memory, and is started; down ends all of it."""
    with defined("whole", memory=320) as before, unchanged():
        taken = [address(serial) for serial in ("LABDRIVE1", "LABDRIVE2", "LABSPARE", "LABVF")]
        tables = "".join(f'[[lane]]\nname = "{name}"\n{text}\n' for name, text in TOGETHER.items())
        spec = tmp_path / "whole.toml"
        spec.write_text(f'[machine]\nname = "whole"\nconnect = "{URI}"\n{tables}')
        up = nvlane("up", "--json", "--yes", spec)
        assert up.status == 0, str(up)
        (said,) = up.json
        assert said["verified"] is True
        assert {piece["lane"] for piece in said["evidence"]} == TOGETHER.keys()
        assert {driver_of(function) for function in taken} == {"vfio-pci"}
        shown = definition("whole")
        assert "<hostdev mode='subsystem' type='pci' managed='no'>" in shown
        assert shown.count("<disk type='nvme' device='disk'>") == 2
        down = nvlane("down", "--json", "--shutdown", "0", "whole").ok().json[0]
        assert [proof["ok"] for proof in down["proofs"]] == [True] * 3
        assert definition("whole") == before
