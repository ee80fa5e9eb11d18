"""The rows of the matrix: every lane in the kinds whose answers differ."""

from __future__ import annotations

from typing import Final

from nvlane.advise.cell import Gives, Way
from nvlane.spec.lane import LaneKind

#: Places under dense I/O on real hardware: what the designs of these data paths promise, and no measurement. A target
#: on a file stands behind the lanes that drive a drive themselves: the host's file system is on its way.
ORDER_IS: Final = "under dense I/O on real hardware the order is passthrough, vhost-user, userspace, emulated"

EMULATED: Final = Way(
    name="emulated",
    short="emu",
    kind=LaneKind.EMULATED,
    title="QEMU models an NVMe controller on an image",
    gives=Gives.NVME,
    order=5,
)
PASSTHROUGH: Final = Way(
    name="passthrough",
    short="pt",
    kind=LaneKind.PASSTHROUGH,
    title="a whole NVMe controller goes to the guest",
    gives=Gives.NVME,
    order=1,
    takes_drive=True,
)
PASSTHROUGH_VF: Final = Way(
    name="passthrough-vf",
    short="ptVF",
    kind=LaneKind.PASSTHROUGH,
    title="one virtual function of a drive goes to the guest",
    gives=Gives.NVME,
    order=1,
)
USERSPACE: Final = Way(
    name="userspace",
    short="us",
    kind=LaneKind.USERSPACE,
    title="QEMU's NVMe driver on a drive, behind virtio-blk",
    gives=Gives.VIRTIO,
    order=3,
    takes_drive=True,
)
USERSPACE_NVME: Final = Way(
    name="userspace-nvme",
    short="usN",
    kind=LaneKind.USERSPACE,
    title="QEMU's NVMe driver on a drive, behind its NVMe device",
    gives=Gives.NVME,
    order=3,
    takes_drive=True,
)
VHOST_DRIVE: Final = Way(
    name="vhost-user-drive",
    short="vuD",
    kind=LaneKind.VHOST_USER,
    title="nvlane-target with its own driver on a drive",
    gives=Gives.VIRTIO,
    order=2,
    takes_drive=True,
)
VHOST_FILE: Final = Way(
    name="vhost-user-file",
    short="vuF",
    kind=LaneKind.VHOST_USER,
    title="nvlane-target on a raw file",
    gives=Gives.VIRTIO,
    order=4,
)
VHOST_DAEMON: Final = Way(
    name="vhost-user-daemon",
    short="qsd",
    kind=LaneKind.VHOST_USER,
    title="qemu-storage-daemon on a raw file",
    gives=Gives.VIRTIO,
    order=4,
)
NVDIMM: Final = Way(
    name="nvdimm-memory",
    short="nvM",
    kind=LaneKind.NVDIMM,
    title="an NVDIMM of memory or hugepages, gone at its end",
    gives=Gives.MEMORY,
)
NVDIMM_DAX: Final = Way(
    name="nvdimm-dax",
    short="nvD",
    kind=LaneKind.NVDIMM,
    title="an NVDIMM on the host's own persistent memory",
    gives=Gives.MEMORY,
)
VIRTIO_PMEM: Final = Way(
    name="virtio-pmem",
    short="vpm",
    kind=LaneKind.NVDIMM,
    title="virtio-pmem on a file",
    gives=Gives.MEMORY,
)
FABRICS: Final = Way(
    name="fabrics",
    short="fab",
    kind=LaneKind.FABRICS,
    title="a namespace of another host, behind virtio-blk",
    gives=Gives.VIRTIO,
)

WAYS: Final[tuple[Way, ...]] = (
    EMULATED,
    PASSTHROUGH,
    PASSTHROUGH_VF,
    USERSPACE,
    USERSPACE_NVME,
    VHOST_DRIVE,
    VHOST_FILE,
    VHOST_DAEMON,
    NVDIMM,
    NVDIMM_DAX,
    VIRTIO_PMEM,
    FABRICS,
)
