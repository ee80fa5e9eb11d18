"""Single operations on the in-memory host: what they refuse, what they keep, what they name."""

from __future__ import annotations

import dataclasses
import signal
import sys
import typing
from collections.abc import Callable
from pathlib import Path

import pytest

from nvlane.apply.journal import JOURNAL
from nvlane.apply.memory import MemoryFunction, MemoryHost
from nvlane.apply.operations.operation import Fate
from nvlane.apply.operations.table import operations
from nvlane.apply.snapshot import differences, host_snapshot
from nvlane.apply.store import Store
from nvlane.apply.undo import UndoReport
from nvlane.model.errors import HostError, NotRestored, Refused
from nvlane.model.pci import PciAddress
from nvlane.model.size import GIB, MIB
from nvlane.plan.step import (
    BindDriver,
    CreateImage,
    Inverse,
    LoadModule,
    MakeDirectory,
    MountHugetlbfs,
    ReserveHugepages,
    StartMachine,
    Step,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "property"))
from random_runs import DRIVES, RUNTIME, Runs, StandIn, launchers, machine, make_host

VFIO = LoadModule(name="vfio-pci")


class World:
    def __init__(self, directory: Path) -> None:
        self.host = make_host()
        self.stand_in = StandIn(self.host)
        self.runs = Runs(Store(directory / "state", directory / "runtime"), self.host, launchers(self.stand_in))
        self.before = host_snapshot(self.host)

    def changes(self) -> tuple[str, ...]:
        return differences(self.before, host_snapshot(self.host))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def bind(index: int = 0, driver: str = "vfio-pci") -> BindDriver:
    return BindDriver(
        address=DRIVES[index],
        driver=driver,
        expect_driver="nvme",
        expect_override="",
        expect_serial=f"SERIAL{index}",
        group=10 + index if index < 2 else None,
    )


def only(report: UndoReport, text: str) -> tuple[Fate, str]:
    (step,) = [step for step in report.steps if text in step.text]
    return step.outcome.fate, step.outcome.why


def test_every_step_and_every_inverse_has_its_operation() -> None:
    stand_in = StandIn(MemoryHost())
    table = operations(launchers(stand_in))
    assert set(table.forward) == set(typing.get_args(Step))
    assert set(table.back) == set(typing.get_args(Inverse))


# --- drivers


def test_a_drive_that_the_kernel_holds_is_refused_and_nothing_changed(world: World) -> None:
    world.host.bus.claimed.add("/dev/nvme0n1")
    with pytest.raises(Refused, match=r"exclusive open of /dev/nvme0n1"):
        world.runs.begin("vm", [VFIO, bind()])
    assert world.changes() == ()


def test_a_drive_that_a_process_holds_is_refused_with_the_process(world: World) -> None:
    process = world.host.hold_open("/dev/nvme0n1")
    with pytest.raises(Refused, match=str(process.pid)):
        world.runs.begin("vm", [VFIO, bind()])
    assert world.changes() == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"expect_serial": "OTHER"}, "serial was 'OTHER' and is 'SERIAL0'"),
        ({"expect_driver": "vfio-pci"}, "driver was 'vfio-pci' and is 'nvme'"),
        ({"expect_override": "x"}, "driver_override was 'x' and is ''"),
        ({"group": 99}, "IOMMU group was '99' and is '10'"),
        ({"address": PciAddress(0, 0x7F, 0, 0)}, "0000:7f:00.0 is gone"),
    ],
)
def test_a_host_that_changed_since_the_plan_is_noticed(world: World, change: dict[str, object], words: str) -> None:
    step = dataclasses.replace(bind(), **change)  # type: ignore[arg-type]
    with pytest.raises(HostError, match=words):
        world.runs.begin("vm", [VFIO, step])
    assert world.changes() == ()


def test_a_driver_that_does_not_take_it_gives_it_back_and_says_so(world: World) -> None:
    with pytest.raises(HostError, match=r"vfio-pci did not take 0000:06:00.0 .* it is back at 'nvme'"):
        world.runs.begin("vm", [VFIO, bind(2)])
    assert world.changes() == ()


def test_what_is_in_use_through_vfio_is_not_unbound(world: World) -> None:
    world.runs.begin("vm", [VFIO, bind()])
    process = world.host.hold_open("/dev/vfio/10")
    report = world.runs.end("vm")
    fate, why = only(report, "SERIAL0")
    assert fate is Fate.FAILED
    assert str(process.pid) in why
    with pytest.raises(NotRestored, match=str(process.pid)) as caught:
        report.raise_for_failed()
    assert caught.value.exit_status == 5
    # The module drives the drive; it must not be forgotten, though unloading it was the last inverse.
    assert only(report, "unload")[0] is Fate.KEPT
    world.host.processes.end(process.pid)
    world.host.bus.open_nodes.clear()
    assert world.runs.end("vm").text() == ""
    assert world.changes() == ()


def test_a_drive_that_moved_to_another_address_is_found_by_its_serial(world: World) -> None:
    world.runs.begin("vm", [VFIO, bind()])
    world.host.pull(DRIVES[0])
    moved = MemoryFunction(address=PciAddress(0, 0x20, 0, 0), group=30, serial="SERIAL0", namespaces=((1, GIB, 512),))
    world.host.bus.add(moved)
    fate, why = only(world.runs.end("vm"), "SERIAL0")
    assert fate is Fate.ALREADY
    assert "SERIAL0 is now nvme" in why


def test_another_drive_in_its_place_is_named_and_left_alone(world: World) -> None:
    world.runs.begin("vm", [VFIO, bind()])
    world.host.pull(DRIVES[0])
    world.host.bus.add(MemoryFunction(address=DRIVES[0], group=10, serial="STRANGER", namespaces=((1, GIB, 512),)))
    fate, why = only(world.runs.end("vm"), "SERIAL0")
    assert fate is Fate.FAILED
    assert "serial STRANGER" in why
    assert world.host.bus.functions[DRIVES[0]].driver == "nvme"


def test_what_somebody_else_bound_since_is_kept(world: World) -> None:
    world.runs.begin("vm", [LoadModule(name="uio_pci_generic"), VFIO, bind()])
    base = DRIVES[0].sysfs
    world.host.write_text(f"{base}/driver_override", "uio_pci_generic")
    world.host.write_text(f"{base}/driver/unbind", str(DRIVES[0]))
    world.host.write_text("/sys/bus/pci/drivers_probe", str(DRIVES[0]))
    fate, why = only(world.runs.end("vm"), "SERIAL0")
    assert (fate, "somebody else has bound" in why) == (Fate.KEPT, True)
    assert world.host.bus.functions[DRIVES[0]].driver == "uio_pci_generic"


def test_an_override_that_was_there_before_comes_back(world: World) -> None:
    world.host.write_text(f"{DRIVES[0].sysfs}/driver_override", "nvme")
    before = host_snapshot(world.host)
    world.runs.begin("vm", [VFIO, dataclasses.replace(bind(), expect_override="nvme")])
    assert world.runs.end("vm").text() == ""
    assert differences(before, host_snapshot(world.host)) == ()


def test_a_function_without_driver_has_none_again(world: World) -> None:
    world.host.write_text(f"{DRIVES[0].sysfs}/driver/unbind", str(DRIVES[0]))
    before = host_snapshot(world.host)
    step = dataclasses.replace(bind(), expect_driver="", expect_serial="")
    world.runs.begin("vm", [VFIO, step])
    assert world.host.bus.functions[DRIVES[0]].driver == "vfio-pci"
    assert world.runs.end("vm").text() == ""
    assert differences(before, host_snapshot(world.host)) == ()


def test_a_boot_that_binds_it_otherwise_is_told(world: World) -> None:
    world.runs.begin("vm", [VFIO, bind()])
    world.host.reboot()
    world.host.modules.load("vfio_pci")
    world.host.write_text(f"{DRIVES[0].sysfs}/driver_override", "vfio-pci")
    world.host.write_text(f"{DRIVES[0].sysfs}/driver/unbind", str(DRIVES[0]))
    world.host.write_text("/sys/bus/pci/drivers_probe", str(DRIVES[0]))
    fate, why = only(world.runs.end("vm"), "SERIAL0")
    assert (fate, "booted since" in why) == (Fate.KEPT, True)


# --- modules


def test_the_last_of_two_runs_unloads_a_module(world: World) -> None:
    world.runs.begin("first", [VFIO])
    world.runs.begin("second", [VFIO])
    fate, why = only(world.runs.end("first"), "vfio-pci")
    assert fate is Fate.KEPT
    assert "also needed by the run 'second'" in why
    assert "vfio_pci" in world.host.modules.loaded
    assert only(world.runs.end("second"), "vfio-pci")[0] is Fate.PUT_BACK
    assert world.changes() == ()


def test_a_module_that_something_holds_is_kept_with_its_reason(world: World) -> None:
    world.runs.begin("vm", [VFIO])
    world.host.modules.pinned.add("vfio")
    report = world.runs.end("vm")
    assert report.failed == ()
    fate, why = only(report, "vfio-pci")
    assert (fate, "vfio is in use (1 references" in why) == (Fate.KEPT, True)
    assert world.host.modules.loaded == ["vfio", "irqbypass"]


# --- hugepages


def test_two_runs_share_a_pool_in_any_order(world: World) -> None:
    for name, pages in (("first", 10), ("second", 20)):
        world.runs.begin(name, [ReserveHugepages(node=0, page_size=2 * MIB, pages=pages)])
    assert world.host.hugepages.pools[0, 2 * MIB].total == 35
    assert world.runs.end("first").text() == ""
    assert world.host.hugepages.pools[0, 2 * MIB].total == 25
    assert world.runs.end("second").text() == ""
    assert world.changes() == ()


def test_a_shortfall_is_explained_and_leaves_the_pool_as_it_was(world: World) -> None:
    with pytest.raises(HostError, match=r"only 50 of 60 hugepages of 2MiB could be reserved on node 1") as caught:
        world.runs.begin("vm", [ReserveHugepages(node=1, page_size=2 * MIB, pages=60)])
    assert caught.value.remedy
    assert world.changes() == ()


# --- mounts, images, processes


def test_a_mount_in_use_is_named_and_tried_again(world: World) -> None:
    world.runs.begin("vm", [MakeDirectory(path="/mnt/x"), MountHugetlbfs(target="/mnt/x", page_size=2 * MIB)])
    world.host.mounts.busy.add("/mnt/x")
    report = world.runs.end("vm")
    assert [step.outcome.fate for step in report.steps] == [Fate.FAILED, Fate.KEPT]
    world.host.mounts.busy.clear()
    assert world.runs.end("vm").text() == ""
    assert not world.host.exists("/mnt")


def test_another_mount_in_the_place_is_refused(world: World) -> None:
    world.host.tree.add_directory("/mnt/x")
    world.host.mounts.mount("tmpfs", "/mnt/x", "tmpfs", "size=1M")
    with pytest.raises(HostError, match=r"/mnt/x is a mount already \(tmpfs"):
        world.runs.begin("vm", [MountHugetlbfs(target="/mnt/x", page_size=2 * MIB)])


def test_an_image_is_never_overwritten(world: World) -> None:
    with pytest.raises(Refused, match="never overwrites"):
        world.runs.begin("vm", [CreateImage(path="/srv/disk0.raw", format="raw", size=MIB)])
    assert world.host.read_text("/srv/disk0.raw") == "somebody's data"


def test_a_machine_that_does_not_become_ready_leaves_nothing(world: World) -> None:
    state = world.host.state()
    world.stand_in.fails = True
    with pytest.raises(HostError, match="it ended"):
        world.runs.begin("vm", [StartMachine(binary="/usr/bin/qemu-system-x86_64", machine=machine(), devices=())])
    assert world.host.state() == state
    assert world.runs.store.names() == ()


def test_keep_leaves_what_was_done_and_its_journal(world: World) -> None:
    world.stand_in.fails = True
    steps = [MakeDirectory(path="/run/x"), StartMachine(binary="/usr/bin/qemu", machine=machine(), devices=())]
    with pytest.raises(HostError, match="it ended"):
        world.runs.begin("vm", steps, keep=True)
    assert world.host.exists("/run/x")
    assert world.host.exists(f"{RUNTIME}/qemu.log")
    assert world.runs.end("vm").text() == ""
    assert not world.host.exists("/run/x")


def test_a_socket_that_is_in_the_way_is_not_removed(world: World) -> None:
    world.host.tree.add_directory(RUNTIME)
    world.host.tree.add(f"{RUNTIME}/qmp.sock", "socket")
    with pytest.raises(HostError, match=r"qmp.sock is there already"):
        world.runs.begin("vm", [StartMachine(binary="/usr/bin/qemu", machine=machine(), devices=())])
    assert world.host.exists(f"{RUNTIME}/qmp.sock")


def test_a_process_that_names_our_paths_is_not_ours(world: World) -> None:
    world.runs.begin("vm", [StartMachine(binary="/usr/bin/qemu", machine=machine(), devices=())])
    reader = world.host.processes.start(("less", f"{RUNTIME}/qemu.log"), {"NVLANE_TOKEN": "another"})
    assert world.runs.end("vm").text() == ""
    assert set(world.host.processes.running) == {reader.pid}


def test_a_machine_that_ignores_sigterm_is_killed(world: World) -> None:
    world.runs.begin("vm", [StartMachine(binary="/usr/bin/qemu", machine=machine(), devices=())])
    (process,) = world.host.processes.running.values()
    process.ignores = frozenset({signal.SIGTERM})
    assert world.runs.end("vm").text() == ""
    assert world.host.processes.running == {}


def test_interrupting_undoes(world: World) -> None:
    def interrupt(effect: str) -> None:
        if effect.startswith("spawn"):
            raise KeyboardInterrupt

    state = world.host.state()
    world.host.before_effect = interrupt
    with pytest.raises(KeyboardInterrupt):
        world.runs.begin("vm", [StartMachine(binary="/usr/bin/qemu", machine=machine(), devices=())])
    assert world.host.state() == state


def test_only_some_steps_are_undone(world: World) -> None:
    world.runs.begin("vm", [MakeDirectory(path="/srv/a")])
    numbers = world.runs.extend("vm", [MakeDirectory(path="/srv/b"), MakeDirectory(path="/srv/c")])
    assert numbers == (1, 2)
    world.runs.end("vm", only=numbers[:1])
    assert [world.host.exists(f"/srv/{name}") for name in "abc"] == [True, False, True]
    world.runs.end("vm")
    assert [world.host.exists(f"/srv/{name}") for name in "abc"] == [False, False, False]


# --- the journal


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda line: line.replace(b"/srv/a", b"/srv/b"), "does not fit its checksum"),
        (lambda line: line[:-9], "no journal record"),
        (lambda _: b"\0" * 40, "no journal record"),
    ],
)
def test_a_damaged_record_in_the_middle_stops_everything(
    world: World, damage: Callable[[bytes], bytes], words: str
) -> None:
    world.runs.begin("vm", [MakeDirectory(path="/srv/a"), MakeDirectory(path="/srv/c")])
    path = world.runs.store.read("vm").path / JOURNAL
    lines = path.read_bytes().splitlines()
    lines[1] = damage(lines[1])
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(HostError, match=rf"journal.jsonl, line 2: .*{words}") as caught:
        world.runs.end("vm")
    assert "the 1 records before it are good" in caught.value.remedy
    assert words in world.runs.store.read("vm").error
    assert world.host.exists("/srv/a")


def test_drives_that_were_taken_are_remembered(world: World) -> None:
    world.runs.begin("vm", [VFIO, bind(1)])
    drive = world.runs.store.remembered_drives()[DRIVES[1]]
    assert (drive.serial, len(drive.namespaces)) == ("SERIAL1", 2)
    world.runs.end("vm")
    assert world.runs.store.remembered_drives() == {}
