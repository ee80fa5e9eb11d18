"""Which operation belongs to which step, and which reversal to which inverse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nvlane.apply.block_qemu import QemuBlocks
from nvlane.apply.domains import LibvirtDomains
from nvlane.apply.migrate_qemu import QemuMigrator
from nvlane.apply.operations.block import (
    BlockLayer,
    CancelBlockJobReversal,
    DropSnapshotReversal,
    ResizeDiskOperation,
    RestoreThrottleReversal,
    StartBlockJobOperation,
    TakeSnapshotOperation,
    ThrottleDiskOperation,
)
from nvlane.apply.operations.configfs import (
    LinkConfigNodeOperation,
    MakeConfigNodeOperation,
    MountConfigfsOperation,
    RemoveConfigLinkReversal,
    RemoveConfigNodeReversal,
    UnmountConfigfsReversal,
)
from nvlane.apply.operations.directories import MakeDirectoryOperation, RemoveDirectoryReversal
from nvlane.apply.operations.domain import (
    DefineDomainOperation,
    Domains,
    OtherLanes,
    PlugDomainOperation,
    RedefineDomainReversal,
    StartDomainOperation,
    StopDomainReversal,
    UnplugDomainReversal,
)
from nvlane.apply.operations.driver import BindDriverOperation, RestoreDriverReversal
from nvlane.apply.operations.fabric import ConnectFabricOperation, DisconnectFabricReversal
from nvlane.apply.operations.hugepages import ReleaseHugepagesReversal, ReserveHugepagesOperation
from nvlane.apply.operations.image import CreateImageOperation, RemoveImageReversal
from nvlane.apply.operations.launch import Launcher, StartMachineOperation, StartTargetOperation, StopReversal
from nvlane.apply.operations.migrate import (
    MigrateMachineOperation,
    Migrator,
    ServeDisksOperation,
    StayHereReversal,
    StopServingReversal,
)
from nvlane.apply.operations.module import LoadModuleOperation, Others, UnloadModuleReversal, no_others
from nvlane.apply.operations.mount import MountHugetlbfsOperation, UnmountReversal
from nvlane.apply.operations.namespace import BindNamespaceOperation, ReleaseNamespaceReversal
from nvlane.apply.operations.operation import Operation, Reversal
from nvlane.apply.operations.owner import DisownPathReversal, OwnPathOperation
from nvlane.apply.operations.plug import PlugDevicesOperation, Plugger, UnplugDevicesReversal
from nvlane.apply.operations.tls_key import AddTlsKeyOperation, RemoveTlsKeyReversal
from nvlane.plan import block_step, domain_step, migrate_step
from nvlane.plan import fabrics_step as fabrics
from nvlane.plan import step as steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchers:
    """Who knows how to start what: QEMU, each target engine by name, hot-plug, the block layer and migration; and who
    speaks to libvirt."""

    machine: Launcher
    plugger: Plugger
    targets: Mapping[str, Launcher] = field(default_factory=dict)
    domains: Domains = field(default_factory=LibvirtDomains)
    blocks: BlockLayer = field(default_factory=QemuBlocks)
    migrator: Migrator = field(default_factory=QemuMigrator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The whole table: by class of step, and by class of inverse."""

    forward: Mapping[type, Operation[Any]]
    back: Mapping[type, Reversal[Any]]
    domains: Domains

    def beside(self, modules: Others, shared: Others, lanes: OtherLanes = lambda _: {}) -> Operations:
        """The same table for one of several runs: `modules` tells which modules the other ones had to load, `shared`
        what else they had to make that two may need, `lanes` what this run's lanes have of a domain's definition."""
        redefine = RedefineDomainReversal(self.domains, lanes)
        return Operations(
            forward={**self.forward, steps.LoadModule: LoadModuleOperation(modules), **_fabrics(shared)},
            back={
                **self.back,
                steps.UnloadModule: UnloadModuleReversal(modules),
                domain_step.RedefineDomain: redefine,
                **_fabrics_back(shared),
            },
            domains=self.domains,
        )


def _fabrics(shared: Others) -> dict[type, Operation[Any]]:
    return {
        fabrics.MountConfigfs: MountConfigfsOperation(shared),
        fabrics.MakeConfigNode: MakeConfigNodeOperation(shared),
        fabrics.LinkConfigNode: LinkConfigNodeOperation(shared),
        fabrics.AddTlsKey: AddTlsKeyOperation(shared),
        fabrics.ConnectFabric: ConnectFabricOperation(shared),
        fabrics.BindNamespace: BindNamespaceOperation(),
    }


def _fabrics_back(shared: Others) -> dict[type, Reversal[Any]]:
    return {
        fabrics.UnmountConfigfs: UnmountConfigfsReversal(shared),
        fabrics.RemoveConfigNode: RemoveConfigNodeReversal(shared),
        fabrics.RemoveConfigLink: RemoveConfigLinkReversal(shared),
        fabrics.RemoveTlsKey: RemoveTlsKeyReversal(shared),
        fabrics.DisconnectFabric: DisconnectFabricReversal(shared),
        fabrics.ReleaseNamespace: ReleaseNamespaceReversal(),
    }


def _blocks(layer: BlockLayer) -> dict[type, Operation[Any]]:
    return {
        block_step.TakeSnapshot: TakeSnapshotOperation(layer),
        block_step.StartBlockJob: StartBlockJobOperation(layer),
        block_step.ThrottleDisk: ThrottleDiskOperation(layer),
        block_step.ResizeDisk: ResizeDiskOperation(layer),
    }


def _blocks_back(layer: BlockLayer) -> dict[type, Reversal[Any]]:
    return {
        block_step.DropSnapshot: DropSnapshotReversal(layer),
        block_step.CancelBlockJob: CancelBlockJobReversal(layer),
        block_step.RestoreThrottle: RestoreThrottleReversal(layer),
    }


def operations(launchers: Launchers) -> Operations:
    """The table for these launchers."""
    return Operations(
        forward={
            steps.LoadModule: LoadModuleOperation(),
            steps.BindDriver: BindDriverOperation(),
            steps.ReserveHugepages: ReserveHugepagesOperation(),
            steps.MakeDirectory: MakeDirectoryOperation(),
            steps.MountHugetlbfs: MountHugetlbfsOperation(),
            steps.CreateImage: CreateImageOperation(),
            steps.StartTarget: StartTargetOperation(launchers.targets),
            steps.StartMachine: StartMachineOperation(launchers.machine),
            steps.PlugDevices: PlugDevicesOperation(launchers.plugger),
            **_blocks(launchers.blocks),
            migrate_step.ReceiveMachine: StartMachineOperation(launchers.machine),
            migrate_step.ServeDisks: ServeDisksOperation(launchers.migrator),
            migrate_step.MigrateMachine: MigrateMachineOperation(launchers.migrator),
            **_fabrics(no_others),
            domain_step.OwnPath: OwnPathOperation(),
            domain_step.DefineDomain: DefineDomainOperation(launchers.domains),
            domain_step.PlugDomain: PlugDomainOperation(launchers.domains),
            domain_step.StartDomain: StartDomainOperation(launchers.domains),
        },
        back={
            steps.UnloadModule: UnloadModuleReversal(),
            steps.RestoreDriver: RestoreDriverReversal(),
            steps.ReleaseHugepages: ReleaseHugepagesReversal(),
            steps.RemoveDirectory: RemoveDirectoryReversal(),
            steps.Unmount: UnmountReversal(),
            steps.RemoveImage: RemoveImageReversal(),
            steps.StopTarget: StopReversal(),
            steps.StopMachine: StopReversal(launchers.machine),
            steps.UnplugDevices: UnplugDevicesReversal(launchers.plugger),
            **_blocks_back(launchers.blocks),
            migrate_step.StayHere: StayHereReversal(launchers.migrator),
            migrate_step.StopServing: StopServingReversal(launchers.migrator),
            **_fabrics_back(no_others),
            domain_step.DisownPath: DisownPathReversal(),
            domain_step.RedefineDomain: RedefineDomainReversal(launchers.domains),
            domain_step.UnplugDomain: UnplugDomainReversal(launchers.domains),
            domain_step.StopDomain: StopDomainReversal(launchers.domains),
        },
        domains=launchers.domains,
    )
