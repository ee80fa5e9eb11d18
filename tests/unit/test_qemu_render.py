"""The command line of every kind of machine, against golden files (NVLANE_REGENERATE=1 writes them anew)."""

from __future__ import annotations

import json
import os
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from qemu_cases import CASES, Case, Place, machine

from nvlane.model.device import PCIE_SLOTS, Frontend, MachineDevice, MemoryNeeds
from nvlane.model.errors import Refused
from nvlane.qemu import board, render

GOLDEN = Path(__file__).parent.parent / "golden" / "qemu"
PLACE = Place(runtime="/run/nvlane/sles,15", images="/images")
FDS = {"qmp": 10, "console": 11, "agent": 12, "probe": 13}


def rendered(case: Case) -> tuple[str, ...]:
    return render.argv("/usr/bin/qemu-system-x86_64", machine(PLACE, case), case.devices(PLACE.images), FDS)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    text = "\n".join(shlex.quote(argument) for argument in rendered(CASES[name])) + "\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("NVLANE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_golden_file_has_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_memory_is_shared_wherever_a_lane_shares_it(name: str) -> None:
    """No memory backend of a machine with a vhost-user lane may be private: its disk would be dead."""
    made = machine(PLACE, CASES[name])
    backends = [json.loads(a) for a in rendered(CASES[name]) if a.startswith('{"qom-type":"memory-backend')]
    guest = [backend for backend in backends if backend["id"].startswith("mem")]
    assert sum(backend["size"] for backend in guest) == made.memory
    if made.needs.shared or made.hugepage:
        assert all(backend["share"] is True for backend in guest)


def test_ids_and_addresses_are_unique() -> None:
    devices = tuple(Frontend(driver="virtio-blk-pci", id=f"blk{n}", slot=True) for n in range(60))
    made = machine(PLACE, CASES["boot-image"])
    arguments = render.argv("qemu", made, devices, {})
    found = [json.loads(a) for flag, a in pairwise(arguments) if flag == "-device"]
    assert len({device["id"] for device in found}) == len(found)
    placed = [(device["bus"], device["addr"]) for device in found if "addr" in device]
    assert len(set(placed)) == len(placed)
    ports = {device["id"] for device in found if device["driver"] == "pcie-root-port"}
    assert len({(d["chassis"], d["slot"]) for d in found if d["id"] in ports}) == len(ports) == 62
    assert all(device["bus"] in ports for device in found if device["id"].startswith("blk"))


def test_function_0_of_a_shared_slot_announces_the_others() -> None:
    devices = tuple(Frontend(driver="virtio-blk-pci", id=f"blk{n}", slot=True) for n in range(7))
    ports = board.root_ports(machine(PLACE, CASES["bare"]), devices)
    assert [port.properties.get("multifunction", False) for port in ports] == [True] + [False] * 8


def test_a_full_board_is_refused_with_a_remedy() -> None:
    devices = tuple(Frontend(driver="virtio-blk-pci", id=f"blk{n}", slot=True) for n in range(1000))
    with pytest.raises(Refused, match=r"1002 PCIe root ports.*room for 200") as refusal:
        render.argv("qemu", machine(PLACE, CASES["bare"]), devices, {})
    assert "several machines" in refusal.value.remedy


def test_without_descriptors_the_command_line_can_be_pasted() -> None:
    arguments = render.argv("qemu", machine(PLACE, CASES["bare"]), (), {})
    assert "socket,id=qmp,path=/run/nvlane/sles,,15/qmp.sock,server=on,wait=off" in arguments
    assert not any("fd=" in argument for argument in arguments)


def test_further_arguments_come_last_and_unchanged() -> None:
    assert rendered(CASES["vfio"])[-2:] == ("-device", "virtio-balloon-pci")


def test_the_bridge_helper_is_let_through_the_sandbox() -> None:
    sandbox = next(a for a in rendered(CASES["vfio"]) if a.startswith("on,obsolete"))
    assert "spawn=allow" in sandbox
    assert "elevateprivileges=allow" in sandbox
    assert "spawn=deny" in next(a for a in rendered(CASES["bare"]) if a.startswith("on,obsolete"))


def test_numa_gives_every_guest_node_its_own_memory() -> None:
    arguments = rendered(CASES["numa"])
    assert "node,nodeid=0,cpus=0,cpus=2,memdev=mem0" in arguments
    assert "node,nodeid=1,cpus=1,memdev=mem1" in arguments
    assert not any("memory-backend=mem0" in argument for argument in arguments)


def test_memory_for_hot_plug_has_a_slot() -> None:
    base = machine(PLACE, CASES["bare"])
    grown = {name: getattr(base, name) for name in MachineDevice.__slots__}
    made = MachineDevice(**{**grown, "needs": MemoryNeeds(hotplug=1 << 30)})
    assert "size=128M,slots=1,maxmem=1152M" in render.argv("qemu", made, (), {})


def test_the_boards_own_ahci_stays_for_those_who_may_want_it() -> None:
    """`-cdrom` among the further arguments, or an installed system, may use it; nvlane's own probe guest does
    not."""

    def board_options(case: Case) -> str:
        arguments = rendered(case)
        return arguments[arguments.index("-machine") + 1]

    assert "sata=off" in board_options(CASES["direct-boot"])
    assert "sata=off" not in board_options(CASES["boot-image"])
    direct = CASES["direct-boot"].machine("/images")
    assert "sata=off" not in board_options(Case(machine=lambda _: {**direct, "extra": ("-cdrom", "x.iso")}))
    assert "sata=off" not in board_options(Case(machine=lambda _: {**direct, "machine_type": "pc"}))


def test_the_plan_counts_the_slots_that_the_board_has() -> None:
    assert len(board.port_places()) == PCIE_SLOTS
