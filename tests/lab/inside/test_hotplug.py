"""Hot-plug with a guest that takes part: every front end is plugged into a running machine, seen and read by
the guest, and let go again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import MIB, Up, machine, nvlane, write_spec

from nvlane.apply.plug_qemu import QemuPlugger
from nvlane.model.device import BlockNode, Device, Frontend, Object
from nvlane.model.errors import HostError
from nvlane.plan.step import PlugDevices, UnplugDevices
from nvlane.qemu.inspect import chardevs, free_ports, guest_pci_address
from nvlane.verify.guest import GuestFault

pytestmark = pytest.mark.lab

IOTHREAD = Object(qom_type="iothread", id="hot-io")
DISK = {"drive": "hot-raw", "serial": "HOT"}

# No usb: Debian's cloud kernel, which the lab's guests run, is built without it.
FRONTENDS: dict[str, tuple[Device, ...]] = {
    "virtio-blk": (
        IOTHREAD,
        Frontend(driver="virtio-blk-pci", id="hot", properties={**DISK, "iothread": "hot-io"}, slot=True),
    ),
    "virtio-scsi": (
        IOTHREAD,
        Frontend(driver="virtio-scsi-pci", id="hot", properties={"iothread": "hot-io"}, slot=True),
        Frontend(driver="scsi-hd", id="hot-disk", properties={**DISK, "bus": "hot.0"}),
    ),
    "nvme": (Frontend(driver="nvme", id="hot", properties=DISK, slot=True),),
}


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    # Shared memory from the start: what a vhost-user device that comes later needs.
    with machine(write_spec(tmp_path_factory.mktemp("hotplug"), "hotplug", memory_backing="memfd")) as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join(hashlib.sha256(bytes([n])).digest() * 2048 for n in range(256)))
    return path


def nodes(image: Path) -> tuple[Device, ...]:
    return (
        BlockNode(driver="file", node_name="hot-file", options={"filename": str(image)}),
        BlockNode(driver="raw", node_name="hot-raw", options={"file": "hot-file"}),
    )


def cycle(up: Up, devices: tuple[Device, ...], image: Path) -> None:
    """In, seen with its content, out; and the machine has nothing of it any more."""
    qmp = str(up.value["qmp"])
    names = tuple(device.node_name if isinstance(device, BlockNode) else device.id for device in devices)
    QemuPlugger().plug(PlugDevices(machine="hotplug", qmp=qmp, devices=devices), 60)
    with up.monitor() as monitor:
        address = guest_pci_address(monitor, "hot")
    assert address is not None
    with up.guest() as guest:
        path = guest.resolve({"pci": str(address)}, deadline=60)
        expected = hashlib.sha256(image.read_bytes()[MIB : 2 * MIB]).hexdigest()
        assert guest.digest(path, [(MIB, MIB)]) == expected
    QemuPlugger().unplug(UnplugDevices(machine="hotplug", qmp=qmp, devices=devices), 60)
    assert QemuPlugger().present(qmp, names) == frozenset()
    with up.guest() as guest, pytest.raises(GuestFault):
        guest.resolve({"pci": str(address)}, deadline=0)


@pytest.mark.parametrize("frontend", FRONTENDS)
def test_in_and_out_twice(up: Up, image: Path, frontend: str) -> None:
    """Twice: the ids and the port are free again."""
    for _ in range(2):
        cycle(up, (*nodes(image), *FRONTENDS[frontend]), image)
    with up.monitor() as monitor:
        assert free_ports(monitor) == ("port0", "port1")


def test_a_vhost_user_lane_with_its_target(up: Up, image: Path, tmp_path: Path) -> None:
    """The whole of `attach` and `detach`: the target comes before the device and goes after it."""
    lane = tmp_path / "lane.toml"
    lane.write_text(f'[[lane]]\nkind = "vhost-user"\nname = "hot"\nfile = "{image}"\nwrite_proof = true\n')
    before = up.status()
    said = nvlane("attach", "--json", up.name, lane).ok().json
    assert [piece for piece in said["evidence"] if not piece["ok"]] == []
    with up.monitor() as monitor:
        links = [chardev for chardev in chardevs(monitor) if "vhost" in chardev.filename]
        assert [chardev.connected for chardev in links] == [True]
    nvlane("detach", "--json", up.name, "hot").ok()
    with up.monitor() as monitor:
        assert free_ports(monitor) == ("port0", "port1")
    assert up.status()["to_undo"] == before["to_undo"]


def test_no_port_is_left(up: Up) -> None:
    many = tuple(
        Frontend(driver="virtio-rng-pci", id=f"hot{n}", properties={"rng": "rng0"}, slot=True) for n in range(3)
    )
    with pytest.raises(HostError, match="2 free PCIe ports, and 3 are needed"):
        QemuPlugger().plug(PlugDevices(machine="hotplug", qmp=str(up.value["qmp"]), devices=many), 60)
