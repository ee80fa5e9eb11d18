"""Steps and inverses of NVMe over Fabrics: configfs nodes of the Target, connections of the Host.

Nothing here holds a secret: a key is named by its file, and read only by the step that hands it to the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nvlane.model.fabrics import FabricPath


@dataclass(frozen=True, slots=True, kw_only=True)
class MountConfigfs:
    """Mount configfs at its one place, if it is not there."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    target: str

    def describe(self) -> str:
        return f"mount configfs on {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeConfigNode:
    """Make a directory of configfs and write its attributes, in order; `secrets` are attributes whose value is the
    first line of a file. One that is there with the same attributes is as good."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    path: str
    attributes: tuple[tuple[str, str], ...] = ()
    secrets: tuple[tuple[str, str], ...] = ()

    def describe(self) -> str:
        values = [f"{name}={value}" for name, value in self.attributes]
        values += [f"{name} from {file}" for name, file in self.secrets]
        return f"make {self.path}" + (f" ({', '.join(values)})" if values else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfigNode:
    """Make a symbolic link of configfs, which is how it joins two nodes."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    path: str
    node: str

    def describe(self) -> str:
        return f"link {self.path} to {self.node}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AddTlsKey:
    """Put the TLS key of a Host and a subsystem, made from the configured one in a file, into a keyring."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    keyring: str
    host_nqn: str
    nqn: str
    file: str

    def describe(self) -> str:
        return f"put the TLS key in {self.file} into the keyring {self.keyring}, for {self.host_nqn} and {self.nqn}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectFabric:
    """Connect this host to a subsystem by one path. Seconds; -1 means for ever. `secret` and `controller_secret` are
    files with DH-HMAC-CHAP keys, `tls_key` the one whose key a step before put into the keyring. `queues` 0: one a
    processor."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    nqn: str
    path: FabricPath
    host_nqn: str
    host_id: str
    controller_loss: int
    reconnect_delay: int
    fast_io_fail: int
    queues: int = 0
    secret: str = ""
    controller_secret: str = ""
    tls: bool = False
    tls_key: str = ""

    def describe(self) -> str:
        return f"connect to {self.nqn} by {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BindNamespace:
    """Find the block device of a namespace of a connected subsystem, see that nobody uses it, and give it a name that
    the plan could know: `path`, a symbolic link. `block_size` is what the plan took the namespace's to be (0: any)."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    nqn: str
    nsid: int
    path: str
    block_size: int = 0

    def describe(self) -> str:
        return f"bind namespace {self.nsid} of {self.nqn} to {self.path}"


# The inverses.


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmountConfigfs:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    target: str

    def describe(self) -> str:
        return f"unmount configfs from {self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveConfigNode:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    path: str

    def describe(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveConfigLink:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    path: str
    node: str

    def describe(self) -> str:
        return f"remove the link {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveTlsKey:
    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    keyring: str
    identity: str

    def describe(self) -> str:
        return f"take the TLS key {self.identity} out of the keyring {self.keyring}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisconnectFabric:
    """End the connection by this one path."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    nqn: str
    path: FabricPath
    host_nqn: str

    def describe(self) -> str:
        return f"disconnect from {self.nqn} by {self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseNamespace:
    """Remove the name of a namespace."""

    TAGGED: ClassVar[bool] = True
    VOLATILE: ClassVar[bool] = True
    path: str

    def describe(self) -> str:
        return f"remove the link {self.path}"


FabricsStep = MountConfigfs | MakeConfigNode | LinkConfigNode | AddTlsKey | ConnectFabric | BindNamespace
FabricsInverse = (
    UnmountConfigfs | RemoveConfigNode | RemoveConfigLink | RemoveTlsKey | DisconnectFabric | ReleaseNamespace
)
