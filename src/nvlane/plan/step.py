"""Steps: every way in which nvlane changes a host, as values.

`apply` has one operation for each class here, which observes, checks, performs and inverts it. `describe()` is what
`nvlane plan` and the journal show. `volatile` steps are undone by a reboot of the host by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nvlane.model.device import BlockNode, Device, MachineDevice
from nvlane.model.pci import PciAddress
from nvlane.model.size import format_size
from nvlane.plan.block_step import BlockInverse, BlockStep
from nvlane.plan.domain_step import DomainInverse, DomainStep
from nvlane.plan.fabrics_step import FabricsInverse, FabricsStep
from nvlane.plan.migrate_step import MigrateInverse, MigrateStep


def _names(devices: tuple[Device, ...]) -> str:
    """What people know devices by: block nodes only where there is nothing else."""
    ids = [device.id for device in devices if not isinstance(device, BlockNode)]
    return ", ".join(ids or [device.node_name for device in devices if isinstance(device, BlockNode)])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModule:
    """modprobe a kernel module; undone only if it was not loaded before."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    name: str

    def describe(self) -> str:
        return f"load the kernel module {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BindDriver:
    """Move a PCI function to another driver through driver_override and drivers_probe.

    The expectations are what the plan saw; they are checked again just before, together with every use of the drive.
    """

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    address: PciAddress
    driver: str
    expect_driver: str
    expect_override: str
    expect_serial: str
    group: int | None
    nvme: bool = True

    def describe(self) -> str:
        whose = f" (serial {self.expect_serial})" if self.expect_serial else ""
        return f"bind {self.address}{whose} from {self.expect_driver or 'no driver'} to {self.driver}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReserveHugepages:
    """Add pages of one size to the pool of one NUMA node. Undone by taking as many away again."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    node: int
    page_size: int
    pages: int

    def describe(self) -> str:
        return f"reserve {self.pages} hugepages of {format_size(self.page_size)} on node {self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDirectory:
    """Make a directory, if it is not there; undone only if it was made."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    path: str
    mode: int = 0o700

    def describe(self) -> str:
        return f"make the directory {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MountHugetlbfs:
    """Mount a hugetlbfs of one page size on a directory that is there."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    target: str
    page_size: int

    def describe(self) -> str:
        return f"mount hugetlbfs ({format_size(self.page_size)} pages) on {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateImage:
    """Create a disk image. Undone only while nothing has been written to it since, unless a job is to `fill` it: half
    a copy is nobody's.

    `backing` is the image below it, which may be in use, with its format."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    path: str
    format: str
    size: int
    backing: str = ""
    backing_format: str = ""
    fill: bool = False

    def describe(self) -> str:
        above = f" over {self.backing}" if self.backing else ""
        return f"create the {self.format} image {self.path} of {format_size(self.size)}{above}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What a vhost-user target serves, for any engine. Exactly one of address, path, malloc and null is set."""

    node: str
    socket: str
    frontend: str  # 'virtio-blk' or 'virtio-scsi'
    queues: int
    block_size: int
    read_only: bool = False
    address: PciAddress | None = None
    namespace: int = 1
    path: str = ""
    malloc: int = 0
    null: int = 0
    block_device: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTarget:
    """Start a vhost-user target on sockets that listen already when it starts. Without an export it serves nothing
    until it is told to, over its RPC socket or by `config`, a file of JSON-RPC calls as SPDK's save_config makes it."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    engine: str
    name: str  # unique on the host: MACHINE.LANE
    binary: str
    directory: str  # its sockets, log and pid stand here
    export: Export | None
    config: str = ""
    opens: tuple[str, ...] = ()  # files and directories that it may open when it is told to, where it confines itself
    memlock: int | None = None
    cpus: frozenset[int] = frozenset()  # its threads run on these only; empty: anywhere
    cores: frozenset[int] = frozenset()  # a reactor is pinned to each of these; empty: one that runs on any of `cpus`
    sandbox: bool = True

    def describe(self) -> str:
        where = f" on {self.export.socket}" if self.export else ""
        return f"start the {self.engine} target {self.name}{where}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMachine:
    """Start QEMU with all devices. `binary` is its absolute path."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    binary: str
    machine: MachineDevice
    devices: tuple[Device, ...]
    memlock: int | None = None

    def describe(self) -> str:
        return f"start {self.machine.name} ({self.binary.rsplit('/', 1)[-1]}, {self.machine.accelerator})"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugDevices:
    """Hot-plug devices into a running machine through QMP, in order; undone by unplugging them in reverse."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    devices: tuple[Device, ...]

    def describe(self) -> str:
        return f"plug {_names(self.devices)} into {self.machine}"


# The inverses. Only the journal makes them.


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadModule:
    """Unload a module and those that came with it (`modules`, in the order in which they were loaded)."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    name: str
    modules: tuple[str, ...]

    def describe(self) -> str:
        return f"unload the kernel module {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreDriver:
    """Give a function back to the driver and the driver_override that it had ('' for none).

    `taken_by` is the driver that it was given to, `identity` 'vendor:device', `namespaces` how many were there."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    address: PciAddress
    driver: str
    override: str
    serial: str
    taken_by: str
    identity: str
    namespaces: int

    def describe(self) -> str:
        whose = f" (serial {self.serial})" if self.serial else ""
        return f"give {self.address}{whose} back to {self.driver or 'no driver'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseHugepages:
    """Take pages away again; `before` is how many there were before they were added."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    node: int
    page_size: int
    pages: int
    before: int

    def describe(self) -> str:
        return f"release {self.pages} hugepages of {format_size(self.page_size)} on node {self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveDirectory:
    """Remove the directories that were made for one path (`made`, outermost first), as far as they are empty."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    path: str
    made: tuple[str, ...]

    def describe(self) -> str:
        return f"remove the directory {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmount:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    target: str
    fstype: str

    def describe(self) -> str:
        return f"unmount {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveImage:
    """Remove an image that nvlane made, if it is still as it was made: same inode, size and time of change.

    `growing` is the name under which it was made; `inode` 0 means that it was never whole. Time in nanoseconds. With
    `fill` it is removed as long as it is the same file: it is a copy that was not completed."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    path: str
    growing: str
    inode: int = 0
    size: int = 0
    mtime_ns: int = 0
    fill: bool = False

    def describe(self) -> str:
        if self.fill:
            return f"remove {self.path}, which was not completed"
        return f"remove the image {self.path}, if nothing was written to it"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopTarget:
    """End a target and remove what it left. `token` is in its environment and in no other process's; `made` are the
    directories that were made for it, `pid` (0: not known) and `start_time` its process in the boot `boot_id`."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    name: str
    directory: str
    token: str
    files: tuple[str, ...]
    made: tuple[str, ...]
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""

    def describe(self) -> str:
        return f"stop the target {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMachine:
    """End QEMU: quit by QMP, else SIGTERM, else SIGKILL; then remove its sockets and logs. Fields as StopTarget."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = False
    name: str
    directory: str
    token: str
    files: tuple[str, ...]
    made: tuple[str, ...]
    pid: int = 0
    start_time: int = 0
    boot_id: str = ""

    def describe(self) -> str:
        return f"stop {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnplugDevices:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    machine: str
    qmp: str
    devices: tuple[Device, ...]

    def describe(self) -> str:
        return f"unplug {_names(self.devices)} from {self.machine}"


Step = (
    LoadModule
    | BindDriver
    | ReserveHugepages
    | MakeDirectory
    | MountHugetlbfs
    | CreateImage
    | StartTarget
    | StartMachine
    | PlugDevices
    | BlockStep
    | MigrateStep
    | FabricsStep
    | DomainStep
)
Inverse = (
    UnloadModule
    | RestoreDriver
    | ReleaseHugepages
    | RemoveDirectory
    | Unmount
    | RemoveImage
    | StopTarget
    | StopMachine
    | UnplugDevices
    | BlockInverse
    | MigrateInverse
    | FabricsInverse
    | DomainInverse
)
