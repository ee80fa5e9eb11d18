"""Every kind of machine started for real (TCG, no guest system): running, its devices there, its links
alive."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from qemu_cases import CASES, DISK_SIZE, Case, Place, file_nodes, machine
from qemu_running import started, wait_until

from nvlane.apply.launch_qemu import QemuLauncher
from nvlane.apply.plug_qemu import QemuPlugger
from nvlane.apply.process import run
from nvlane.model.device import PCIE_SLOTS, Device, Frontend, Object, SocketChardev
from nvlane.model.errors import CommandFailed, HostError, WireError
from nvlane.plan.step import Export, PlugDevices, StartMachine, StartTarget, UnplugDevices
from nvlane.qemu import inspect
from nvlane.qemu.hotplug import hot_unplug, unplug_order
from nvlane.targets.storage_daemon import StorageDaemon
from nvlane.wire.qmp import Qmp

QEMU = shutil.which("qemu-system-x86_64") or ""
DAEMON = shutil.which("qemu-storage-daemon") or ""
pytestmark = pytest.mark.skipif(not (QEMU and DAEMON), reason="QEMU is not installed")

REAL = {name: case for name, case in CASES.items() if case.real}


@cache
def has_property(device: str, name: str) -> bool:
    return f"  {name}=" in run([QEMU, "-device", f"{device},help"]).stdout


@contextlib.contextmanager
def target(directory: Path) -> Iterator[int]:
    """A storage daemon that serves disk0.raw of `directory` on vhost.sock there."""
    export = Export(
        node="disk0",
        socket=f"{directory}/vhost.sock",
        frontend="virtio-blk",
        queues=2,
        block_size=512,
        path=f"{directory}/disk0.raw",
    )
    step = StartTarget(
        engine="qemu-storage-daemon", name="t.0", binary=DAEMON, directory=f"{directory}/target", export=export
    )
    with started(StorageDaemon(), step) as pid:
        yield pid


def step_of(case: Case, directory: Path) -> StartMachine:
    for name in case.images:
        with (directory / name).open("wb") as image:
            image.truncate(DISK_SIZE)
    place = Place(runtime=str(directory / "run"), images=str(directory))
    return StartMachine(binary=QEMU, machine=machine(place, case), devices=case.devices(str(directory)))


@contextlib.contextmanager
def machine_of(case: Case, directory: Path) -> Iterator[int]:
    step = step_of(case, directory)
    with contextlib.ExitStack() as stack:
        if case.target:
            stack.enter_context(target(directory))
        yield stack.enter_context(started(QemuLauncher(), step))


@contextlib.contextmanager
def up(case: Case, directory: Path) -> Iterator[Qmp]:
    # A monitor serves one client: this one must be closed before the launcher asks QEMU to quit.
    with machine_of(case, directory) as pid, Qmp.connect(f"{directory}/run/qmp.sock", pid=pid) as monitor:
        yield monitor


@pytest.mark.parametrize("name", REAL)
def test_starts(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    for device, wanted in case.needs:
        if not has_property(device, wanted):
            pytest.skip(f"this QEMU's {device} has no {wanted}")
    with up(case, tmp_path) as monitor:
        assert inspect.status(monitor) == "running"
        assert set(case.present) <= inspect.device_ids(monitor)
        links = {device.id for device in case.devices("") if isinstance(device, SocketChardev)}
        assert {c.id for c in inspect.chardevs(monitor) if c.connected} >= links | {"qmp"}
        assert len(inspect.vcpu_threads(monitor)) == machine(Place(runtime=""), case).cpus
    assert oct((tmp_path / "run" / "console.log").stat().st_mode)[-3:] == "600"
    assert oct((tmp_path / "run" / "qemu.log").stat().st_mode)[-3:] == "600"


def test_a_full_board_starts(tmp_path: Path) -> None:
    case = Case(machine=lambda _: {"root_ports": PCIE_SLOTS})
    with up(case, tmp_path) as monitor:
        assert inspect.status(monitor) == "running"
        assert len(inspect.free_ports(monitor)) == PCIE_SLOTS


def test_memory_devices_are_listed_without_the_label(tmp_path: Path) -> None:
    with up(CASES["nvdimm"], tmp_path) as monitor:
        (device,) = inspect.memory_devices(monitor)
    # QEMU lists the whole backend of an NVDIMM; the label is a part of it.
    assert (device.id, device.kind, device.size - device.size % DISK_SIZE) == ("dimm", "nvdimm", DISK_SIZE)


def test_iothreads_have_threads(tmp_path: Path) -> None:
    with up(CASES["frontend-virtio-blk"], tmp_path) as monitor:
        assert inspect.iothread_threads(monitor)["io0"] > 0


def test_a_broken_command_line_is_told_in_qemus_words(tmp_path: Path) -> None:
    case = Case(devices=lambda _: (Frontend(driver="nvme", id="ctrl", slot=True),))
    with pytest.raises(CommandFailed) as error, up(case, tmp_path):
        pass
    assert error.value.status == "exit status 1"
    assert "serial property not set" in error.value.last_words
    assert str(tmp_path / "run" / "qmp.sock") in error.value.command
    assert "fd=" not in error.value.command


def test_a_dead_vhost_user_link_is_seen(tmp_path: Path) -> None:
    """Without shared memory QEMU runs on with a dead disk, from the moment when the guest (here its firmware)
    drives it. Only the character device shows that, and `share=on` by construction prevents it."""
    whole = CASES["vhost-user-blk"]
    private = Case(devices=whole.devices, images=whole.images, target=True)
    with up(private, tmp_path) as monitor:

        def dead() -> bool:
            return not all(chardev.connected for chardev in inspect.chardevs(monitor) if chardev.id == "link")

        wait_until(dead, "the link of private memory is dead")
        assert inspect.status(monitor) == "running"


HOT: dict[str, tuple[Device, ...]] = {
    "virtio-blk": (
        Object(qom_type="iothread", id="io9"),
        Frontend(driver="virtio-blk-pci", id="hot", properties={"drive": "disk0", "iothread": "io9"}, slot=True),
    ),
    "virtio-scsi": (
        Frontend(driver="virtio-scsi-pci", id="hot", slot=True),
        Frontend(driver="scsi-hd", id="hot-disk", properties={"drive": "disk0", "bus": "hot.0"}),
    ),
    "nvme": (Frontend(driver="nvme", id="hot", properties={"drive": "disk0", "serial": "1"}, slot=True),),
    "usb": (
        Frontend(driver="qemu-xhci", id="hot", slot=True),
        Frontend(driver="usb-storage", id="hot-disk", properties={"drive": "disk0", "bus": "hot.0"}),
    ),
}


@pytest.mark.parametrize("name", HOT)
def test_hot_plug(name: str, tmp_path: Path) -> None:
    """Plugged into the first free port. Without a guest system nobody lets it go again, which is an error
    that names the event; the way back as a whole is tested in the lab."""
    devices = (*file_nodes(str(tmp_path)), *HOT[name])
    ids = ("hot", "disk0", "nothing")
    qmp = f"{tmp_path}/run/qmp.sock"
    plugger = QemuPlugger()
    step = PlugDevices(machine="m", qmp=qmp, devices=devices)
    with machine_of(Case(images=("disk0.raw",)), tmp_path):
        assert plugger.present(qmp, ids) == frozenset()
        plugger.plug(step, 10)
        plugger.plug(step, 10)  # what is there is left out
        assert plugger.present(qmp, ids) == {"hot", "disk0"}
        with Qmp.connect(qmp) as monitor:
            assert inspect.free_ports(monitor) == ("port1",)
        with pytest.raises(WireError, match="DEVICE_DELETED"):
            plugger.unplug(UnplugDevices(machine="m", qmp=qmp, devices=devices), 0.2)
    assert plugger.present(qmp, ids) is None


def test_ports_run_out(tmp_path: Path) -> None:
    nvme = tuple(
        Frontend(driver="virtio-rng-pci", id=f"hot{n}", properties={"rng": "rng0"}, slot=True) for n in range(3)
    )
    with machine_of(Case(), tmp_path), pytest.raises(HostError, match="2 free PCIe ports, and 3 are needed"):
        QemuPlugger().plug(PlugDevices(machine="m", qmp=f"{tmp_path}/run/qmp.sock", devices=nvme), 10)


def test_hot_plug_on_a_board_without_ports(tmp_path: Path) -> None:
    entropy = Frontend(driver="virtio-rng-pci", id="hot", properties={"rng": "rng0"}, slot=True)
    qmp = f"{tmp_path}/run/qmp.sock"
    with machine_of(Case(machine=lambda _: {"machine_type": "pc"}), tmp_path):
        QemuPlugger().plug(PlugDevices(machine="m", qmp=qmp, devices=(entropy,)), 10)
        with Qmp.connect(qmp) as monitor:
            assert inspect.guest_pci_address(monitor, "hot") is not None
            assert inspect.guest_pci_address(monitor, "serial0") is None


def test_parts_without_a_guest_go_at_once(tmp_path: Path) -> None:
    qmp = f"{tmp_path}/run/qmp.sock"
    thread = Object(qom_type="iothread", id="io9")
    devices = (thread, *file_nodes(str(tmp_path)))
    with machine_of(Case(images=("disk0.raw",)), tmp_path):
        QemuPlugger().plug(PlugDevices(machine="m", qmp=qmp, devices=devices), 10)
        inverse = UnplugDevices(machine="m", qmp=qmp, devices=devices)
        QemuPlugger().unplug(inverse, 10)
        assert QemuPlugger().present(qmp, ("io9", "disk0", "file0")) == frozenset()
        QemuPlugger().unplug(inverse, 10)


def test_what_rides_on_a_bus_leaves_with_it() -> None:
    order = [hot_unplug(device) for device in unplug_order((*file_nodes("/images"), *HOT["virtio-scsi"]))]
    assert [(command.execute, command.gone) for command in order] == [
        ("device_del", "hot"),
        ("blockdev-del", ""),
        ("blockdev-del", ""),
    ]
