"""A machine for each lane, planned as `nvlane up` plans it, and one more of everything that `nvlane host` does."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

from nvlane.apply.launchers import default_launchers
from nvlane.apply.linux import LinuxHost
from nvlane.apply.operations.function import observe_function
from nvlane.apply.store import HOST_RUN, Store
from nvlane.cli.service.world import read_for, this_world
from nvlane.lanes.compose import make_plan
from nvlane.model.pci import PciAddress
from nvlane.model.size import MIB
from nvlane.plan.step import BindDriver, CreateImage, LoadModule, MakeDirectory, MountHugetlbfs, ReserveHugepages, Step
from nvlane.spec.reader import parse_spec
from nvlane.targets.table import ENGINES

sys.path.insert(0, str(Path(__file__).parents[2] / "unit"))
from apply_runs import Runs

#: Where the lanes' images stand; each run makes them anew and takes them away.
WORK = "/var/tmp/fault"

LANES = {
    "emulated": f"""
        [[lane]]
        kind = "emulated"
        serial = "FAULT"
        [[lane.namespaces]]
        image = "{WORK}/a.qcow2"
        size = "64MiB"
        [[lane.namespaces]]
        image = "{WORK}/b.raw"
        size = "64MiB"
        """,
    "passthrough": """
        [[lane]]
        kind = "passthrough"
        drive = "serial:LABDRIVE2"
        """,
    "userspace": """
        [[lane]]
        kind = "userspace"
        drive = "serial:LABDRIVE1"
        frontend = "virtio-blk"
        """,
    "vhost-user": """
        [[lane]]
        kind = "vhost-user"
        drive = "serial:LABSPARE"
        """,
    "nvdimm": """
        [[lane]]
        kind = "nvdimm"
        backing = "hugepages"
        size = "64MiB"
        label = "2MiB"
        """,
}
HOST = "host"


def runs() -> Runs:
    host = LinuxHost()
    return Runs(Store.of(host), host, default_launchers())


def run_name(lane: str) -> str:
    return HOST_RUN if lane == HOST else f"fault-{lane}"


def spec_text(lane: str) -> str:
    """Without KVM: nothing has to boot here, and starting QEMU is all the same."""
    machine = f'[machine]\nname = "{run_name(lane)}"\nmemory = "128MiB"\ncpus = 1\naccelerator = "tcg"\n'
    return machine + LANES[lane]


@cache
def steps_of(lane: str) -> tuple[Step, ...]:
    """The steps of a lane's machine; of a host with two drives, hugepages, a mount and an image for HOST."""
    if lane == HOST:
        return _host_steps()
    spec = parse_spec(spec_text(lane), f"{lane}.toml", WORK)
    world = this_world()
    plan = make_plan(spec, read_for(world, spec), ENGINES)
    assert plan.refusals == (), plan.refusals
    return plan.steps


def _host_steps() -> tuple[Step, ...]:
    host = LinuxHost()
    binds: list[Step] = []
    for name in host.listdir("/sys/bus/pci/devices"):
        found = observe_function(host, PciAddress.parse(name))
        if found.drive is not None and found.drive.serial in ("LABDRIVE1", "LABDRIVE2"):
            binds.append(
                BindDriver(
                    address=PciAddress.parse(name),
                    driver="vfio-pci",
                    expect_driver="nvme",
                    expect_override="",
                    expect_serial=found.drive.serial,
                    group=found.group,
                )
            )
    assert len(binds) == 2
    return (
        LoadModule(name="vfio-pci"),
        LoadModule(name="vfio_iommu_type1"),
        *binds,
        ReserveHugepages(node=0, page_size=2 * MIB, pages=8),
        MakeDirectory(path=f"{WORK}/deep/huge"),
        MountHugetlbfs(target=f"{WORK}/deep/huge", page_size=2 * MIB),
        CreateImage(path=f"{WORK}/a.raw", format="raw", size=MIB),
        CreateImage(path=f"{WORK}/a.qcow2", format="qcow2", size=MIB),
    )
