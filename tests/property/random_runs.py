"""Random hosts and random steps on them, for the tests of apply and undo."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from nvlane.apply.memory import MemoryFunction, MemoryHost, Pool
from nvlane.apply.operations.launch import Launch
from nvlane.apply.operations.table import Launchers
from nvlane.model.device import MachineDevice, MemoryNeeds, Object
from nvlane.model.errors import HostError
from nvlane.model.fabrics import FabricPath, Transport
from nvlane.model.pci import PciAddress
from nvlane.model.size import GIB, MIB
from nvlane.plan.fabrics_step import (
    AddTlsKey,
    BindNamespace,
    ConnectFabric,
    LinkConfigNode,
    MakeConfigNode,
    MountConfigfs,
)
from nvlane.plan.step import (
    BindDriver,
    CreateImage,
    Export,
    LoadModule,
    MakeDirectory,
    MountHugetlbfs,
    PlugDevices,
    ReserveHugepages,
    StartMachine,
    StartTarget,
    Step,
    UnplugDevices,
)

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from apply_runs import Runs

__all__ = ["DRIVES", "Killed", "Runs", "StandIn", "launchers", "make_host", "step_lists"]

DRIVES = tuple(PciAddress(0, 4 + index, 0, 0) for index in range(3))
RUNTIME = "/run/nvlane/vm"
QMP = f"{RUNTIME}/qmp.sock"


class Killed(BaseException):
    """Stands for SIGKILL: nothing in nvlane may catch it."""


@dataclass
class StandIn:
    """Launcher and plugger for the in-memory host. What is plugged lives as long as the process that serves QMP."""

    host: MemoryHost
    plugged: dict[int, set[str]] = field(default_factory=dict)
    fails: bool = False

    def launch(self, step: Any) -> Launch:
        if isinstance(step, StartMachine):
            return Launch(name=step.machine.name, directory=RUNTIME, log=f"{RUNTIME}/qemu.log", sockets={"qmp": QMP})
        return Launch(
            name=step.name,
            directory=step.directory,
            log=f"{step.directory}/{step.name}.log",
            sockets={"export": step.export.socket},
        )

    def argv(self, step: Any, descriptors: Mapping[str, int]) -> tuple[str, ...]:
        return (step.binary, *(f"{name}={number}" for name, number in descriptors.items()))

    def ready(self, step: Any, pid: int, deadline: float) -> None:  # noqa: ARG002
        if self.fails:
            self.host.processes.end(pid)
            raise HostError("it ended")

    def quit(self, directory: str, name: str, deadline: float) -> None:  # noqa: ARG002
        raise HostError("nobody answers")

    def _machine(self, qmp: str) -> int | None:
        return next((pid for pid, process in self.host.processes.running.items() if qmp in process.sockets), None)

    def present(self, qmp: str, ids: tuple[str, ...]) -> frozenset[str] | None:
        pid = self._machine(qmp)
        return None if pid is None else frozenset(ids) & self.plugged.get(pid, set())

    def plug(self, step: PlugDevices, deadline: float) -> None:  # noqa: ARG002
        pid = self._machine(step.qmp)
        assert pid is not None
        for device in step.devices:
            assert isinstance(device, Object)
            self.host.before_effect(f"plug {device.id}")
            self.plugged.setdefault(pid, set()).add(device.id)

    def unplug(self, inverse: UnplugDevices, deadline: float) -> None:  # noqa: ARG002
        pid = self._machine(inverse.qmp)
        assert pid is not None
        for device in inverse.devices:
            assert isinstance(device, Object)
            self.host.before_effect(f"unplug {device.id}")
            self.plugged[pid].discard(device.id)


def launchers(stand_in: StandIn) -> Launchers:
    return Launchers(machine=stand_in, plugger=stand_in, targets={"qemu-storage-daemon": stand_in})


def make_host() -> MemoryHost:
    """Three drives (the last without IOMMU group), two pools with pages of other people, a module of theirs."""
    host = MemoryHost(
        functions=[
            MemoryFunction(
                address=address,
                group=10 + index if index < 2 else None,
                serial=f"SERIAL{index}",
                namespaces=((1, GIB, 512), (2, GIB, 4096))[: index + 1],
            )
            for index, address in enumerate(DRIVES)
        ],
        pools={(0, 2 * MIB): Pool(capacity=600, total=5, used=3), (1, 2 * MIB): Pool(capacity=50)},
    )
    host.modules.load("irqbypass")
    host.tree.add_text("/srv/disk0.raw", "somebody's data")
    host.tree.add(
        TLS_KEY, "file", data=b"NVMeTLSkey-1:00:FzPFn6f0j8839fJvxP8CaK1PeOAw9POwv9HUfnuxRHre+Y7v:", mode=0o600
    )
    return host


def machine() -> MachineDevice:
    return MachineDevice(
        name="vm",
        uuid="00000000-0000-0000-0000-000000000001",
        machine_type="q35",
        accelerator="tcg",
        cpu_model="max",
        memory=GIB,
        cpus=1,
        runtime=RUNTIME,
        needs=MemoryNeeds(),
    )


def _binds(draw: st.DrawFn) -> list[Step]:
    steps: list[Step] = []
    for address in draw(st.lists(st.sampled_from(DRIVES[:2]), unique=True)):
        index = DRIVES.index(address)
        steps.append(
            BindDriver(
                address=address,
                driver=draw(st.sampled_from(["vfio-pci", "uio_pci_generic"])),
                expect_driver="nvme",
                expect_override="",
                expect_serial=f"SERIAL{index}",
                group=10 + index,
            )
        )
    return steps


NVMET = "/sys/kernel/config/nvmet"
NQN = "nqn.2014-08.org.example:disk"
TLS_KEY = "/srv/tls.key"


def fabrics_steps(*, connected: bool) -> list[Step]:
    """A Target on this host, and, `connected`, this host as its Host."""
    subsystem, host = f"{NVMET}/subsystems/{NQN}", f"{NVMET}/hosts/nqn.2014-08.org.example:host"
    steps: list[Step] = [
        LoadModule(name="configfs"),
        MountConfigfs(target="/sys/kernel/config"),
        LoadModule(name="nvmet"),
        LoadModule(name="nvme-loop"),
        MakeConfigNode(path=subsystem, attributes=(("attr_allow_any_host", "0"),)),
        MakeConfigNode(path=f"{subsystem}/namespaces/1", attributes=(("device_path", "/srv/x"), ("enable", "1"))),
        MakeConfigNode(path=host),
        LinkConfigNode(path=f"{subsystem}/allowed_hosts/nqn.2014-08.org.example:host", node=host),
        AddTlsKey(keyring=".nvme", host_nqn="nqn.2014-08.org.example:host", nqn=NQN, file=TLS_KEY),
        MakeConfigNode(path=f"{NVMET}/ports/1", attributes=(("addr_trtype", "loop"),)),
        LinkConfigNode(path=f"{NVMET}/ports/1/subsystems/{NQN}", node=subsystem),
    ]
    if connected:
        connect = ConnectFabric(
            nqn=NQN,
            path=FabricPath(transport=Transport.LOOP),
            host_nqn="nqn.2014-08.org.example:host",
            host_id="00000000-0000-0000-0000-000000000001",
            controller_loss=-1,
            reconnect_delay=2,
            fast_io_fail=-1,
        )
        steps += [connect, MakeDirectory(path="/run/nvlane/vm/lane0")]
        steps.append(BindNamespace(nqn=NQN, nsid=1, path="/run/nvlane/vm/lane0/namespace", block_size=512))
    return steps


@st.composite
def step_lists(draw: st.DrawFn) -> tuple[Step, ...]:
    """Steps in the order of a real plan; each kind may be missing."""
    steps: list[Step] = []
    binds = _binds(draw)
    steps += [LoadModule(name="uio_pci_generic"), LoadModule(name="vfio-pci"), LoadModule(name="vfio_iommu_type1")]
    if not binds:
        steps = steps[: draw(st.integers(0, 3))]
    steps += binds
    pools = st.tuples(st.integers(0, 1), st.integers(1, 45))
    for node, pages in draw(st.lists(pools, max_size=2, unique_by=lambda pool: pool[0])):
        steps.append(ReserveHugepages(node=node, page_size=2 * MIB, pages=pages))
    if draw(st.booleans()):
        steps.append(MakeDirectory(path=draw(st.sampled_from(["/run/nvlane/huge", "/mnt/a/b", "/run"]))))
        steps.append(MountHugetlbfs(target=steps[-1].path, page_size=2 * MIB))
    if draw(st.booleans()):
        steps += fabrics_steps(connected=draw(st.booleans()))
    for form in draw(st.lists(st.sampled_from(["raw", "qcow2"]), unique=True)):
        steps.append(CreateImage(path=f"/srv/new.{form}", format=form, size=GIB))
    if draw(st.booleans()):
        export = Export(
            node="n", socket=f"{RUNTIME}/vm.0.sock", frontend="virtio-blk", queues=1, block_size=512, null=GIB
        )
        steps.append(
            StartTarget(
                engine="qemu-storage-daemon",
                name="vm.0",
                binary="/usr/bin/qemu-storage-daemon",
                directory=RUNTIME,
                export=export,
            )
        )
    if draw(st.booleans()):
        steps.append(StartMachine(binary="/usr/bin/qemu-system-x86_64", machine=machine(), devices=()))
        if draw(st.booleans()):
            devices = (Object(qom_type="iothread", id="io0"), Object(qom_type="iothread", id="io1"))
            steps.append(PlugDevices(machine="vm", qmp=QMP, devices=devices))
    return tuple(steps)
