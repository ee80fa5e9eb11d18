"""The tour that the demo takes through the lab: every lane, each as a spec that a person could have written.

Paths are the lab's own. The drives are those of `lab.drives`; the kernel's driver holds them when the tour starts and
has them again when it ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from nvlane.lab import fcloop, roce
from nvlane.lab.machine import Kernel

#: Where the tour keeps its images and backing files, inside the lab.
WORK = "/var/tmp/tour"
#: A Target host, apart from the lab's own by a network name space: its address, and what it exports.
TARGET_ADDRESS = "10.9.0.2"
TARGET_NQN = "nqn.2014-08.org.example:demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """One halt of the tour: a lane in one variant. `all_only` ones are left out unless everything is asked for.

    `exported` says over which transport another host exports a file while the halt lasts; empty: there is none.
    `kernel` is which one the lab needs.
    """

    name: str  # of the machine
    lane: str
    variant: str
    frontend: str
    body: str
    exported: str = ""
    all_only: bool = False
    kernel: Kernel = Kernel.CLOUD

    def spec(self, connect: str = "") -> str:
        """The TOML text of the spec, for a machine of nvlane's own or for the libvirt domain of this name."""
        if connect:
            return f'[machine]\nname = "{self.name}"\nconnect = "{connect}"\n\n{self.body}'
        return f'[machine]\nname = "{self.name}"\nmemory = "256MiB"\ncpus = 1\n\n{self.body}'


TOUR = (
    Halt(
        name="demo-emulated",
        lane="emulated",
        variant="two namespaces, one zoned",
        frontend="nvme",
        body=f"""[[lane]]
kind = "emulated"
serial = "DEMO-EMULATED"
nqn = "nqn.2019-08.org.qemu:demo"
write_proof = true

[[lane.namespaces]]
image = "{WORK}/disk1.qcow2"
size = "1GiB"

[[lane.namespaces]]
image = "{WORK}/zoned.raw"
size = "256MiB"
block_size = 4096
zoned = {{ zone_size = "16MiB", max_open = 8, max_active = 8 }}
""",
    ),
    Halt(
        name="demo-passthrough",
        lane="passthrough",
        variant="whole controller",
        frontend="nvme",
        body='[[lane]]\nkind = "passthrough"\ndrive = "serial:LABDRIVE2"\nwrite_proof = true\n',
    ),
    Halt(
        name="demo-userspace",
        lane="userspace",
        variant="a drive with data",
        frontend="virtio-blk",
        body='[[lane]]\nkind = "userspace"\ndrive = "serial:LABDRIVE1"\nfrontend = "virtio-blk"\nread_only = true\n',
    ),
    Halt(
        name="demo-userspace-scsi",
        lane="userspace",
        variant="4096-byte blocks",
        frontend="virtio-scsi",
        body="""[[lane]]
kind = "userspace"
drive = "serial:LABDRIVE2"
namespace = 2
frontend = "virtio-scsi"
write_proof = true
""",
        all_only=True,
    ),
    Halt(
        name="demo-userspace-nvme",
        lane="userspace",
        variant="behind a modelled controller",
        frontend="nvme",
        body='[[lane]]\nkind = "userspace"\ndrive = "serial:LABSPARE"\nfrontend = "nvme"\nwrite_proof = true\n',
        all_only=True,
    ),
    Halt(
        name="demo-vhost-drive",
        lane="vhost-user",
        variant="nvlane-target on a drive",
        frontend="virtio-blk",
        body='[[lane]]\nkind = "vhost-user"\ndrive = "serial:LABSPARE"\nwrite_proof = true\n',
    ),
    Halt(
        name="demo-vhost-file",
        lane="vhost-user",
        variant="nvlane-target on a file",
        frontend="virtio-scsi",
        body=f"""[[lane]]
kind = "vhost-user"
frontend = "virtio-scsi"
file = "{WORK}/vhost.raw"
size = "256MiB"
write_proof = true
""",
    ),
    Halt(
        name="demo-vhost-scsi-drive",
        lane="vhost-user",
        variant="nvlane-target on a drive, 4096-byte blocks",
        frontend="virtio-scsi",
        body="""[[lane]]
kind = "vhost-user"
frontend = "virtio-scsi"
drive = "serial:LABDRIVE2"
namespace = 2
write_proof = true
""",
        all_only=True,
    ),
    Halt(
        name="demo-daemon-drive",
        lane="vhost-user",
        variant="qemu-storage-daemon on a drive",
        frontend="virtio-blk",
        body="""[[lane]]
kind = "vhost-user"
engine = "qemu-storage-daemon"
drive = "serial:LABSPARE"
write_proof = true
""",
        all_only=True,
    ),
    Halt(
        name="demo-daemon-file",
        lane="vhost-user",
        variant="qemu-storage-daemon on a file",
        frontend="virtio-blk",
        body=f"""[[lane]]
kind = "vhost-user"
engine = "qemu-storage-daemon"
file = "{WORK}/vhost.raw"
size = "256MiB"
write_proof = true
""",
        all_only=True,
    ),
    Halt(
        name="demo-nvdimm",
        lane="nvdimm",
        variant="hugepages, fsdax, ext4 with DAX",
        frontend="nvdimm",
        body="""[[lane]]
kind = "nvdimm"
backing = "hugepages"
size = "256MiB"
label = "2MiB"
mode = "fsdax"
filesystem = "ext4"
""",
    ),
    Halt(
        name="demo-nvdimm-sector",
        lane="nvdimm",
        variant="sector: BTT, blocks of 4 KiB",
        frontend="nvdimm",
        body="""[[lane]]
kind = "nvdimm"
backing = "memory"
size = "128MiB"
mode = "sector"
sector_size = 4096
""",
    ),
    Halt(
        name="demo-pmem-file",
        lane="nvdimm",
        variant="a file, flushed by the host",
        frontend="virtio-pmem",
        body=f"""[[lane]]
kind = "nvdimm"
backing = "file"
path = "{WORK}/pmem.raw"
size = "128MiB"
write_proof = true
""",
    ),
    Halt(
        name="demo-fabrics",
        lane="fabrics",
        variant="tcp, from a host of its own",
        frontend="virtio-blk",
        body=f"""[[lane]]
kind = "fabrics"
transport = "tcp"
address = "{TARGET_ADDRESS}"
nqn = "{TARGET_NQN}"
block_size = 4096
write_proof = true
""",
        exported="tcp",
    ),
    Halt(
        name="demo-fabrics-fc",
        lane="fabrics",
        variant="Fibre Channel, from a host of its own",
        frontend="nvme",
        body=f"""[[lane]]
kind = "fabrics"
transport = "fc"
address = "{fcloop.TARGET_ADDRESS}"
host_address = "{fcloop.HOST_ADDRESS}"
nqn = "{TARGET_NQN}"
block_size = 4096
frontend = "nvme"
write_proof = true
""",
        exported="fc",
        all_only=True,
    ),
    Halt(
        name="demo-fabrics-rdma",
        lane="fabrics",
        variant="RDMA: RoCE v2 on rdma_rxe",
        frontend="virtio-blk",
        body=f"""[[lane]]
kind = "fabrics"
transport = "rdma"
address = "{roce.TARGET_ADDRESS}"
nqn = "{TARGET_NQN}"
block_size = 4096
write_proof = true
""",
        exported="rdma",
        all_only=True,
        kernel=Kernel.FULL,
    ),
    Halt(
        name="demo-fabrics-target",
        lane="fabrics",
        variant="tcp, through nvlane-target",
        frontend="virtio-scsi",
        body=f"""[[lane]]
kind = "fabrics"
transport = "tcp"
address = "{TARGET_ADDRESS}"
nqn = "{TARGET_NQN}"
block_size = 4096
engine = "nvlane"
frontend = "virtio-scsi"
write_proof = true
""",
        exported="tcp",
        all_only=True,
    ),
    Halt(
        name="demo-emulated-fdp",
        lane="emulated",
        variant="FDP, protection information",
        frontend="nvme",
        body=f"""[[lane]]
kind = "emulated"
serial = "DEMO-FDP"
fdp = {{ handles = 4 }}

[[lane.namespaces]]
image = "{WORK}/fdp.raw"
size = "256MiB"
block_size = 4096
metadata_size = 8
protection = 1
handles = [0, 1]
""",
        all_only=True,
    ),
    Halt(
        name="demo-emulated-sriov",
        lane="emulated",
        variant="SR-IOV",
        frontend="nvme",
        body=f"""[[lane]]
kind = "emulated"
serial = "DEMO-SRIOV"
vfs = 2
namespaces = [{{ image = "{WORK}/sriov.raw", size = "256MiB" }}]
""",
        all_only=True,
    ),
    Halt(
        name="demo-emulated-cmb",
        lane="emulated",
        variant="CMB and PMR",
        frontend="nvme",
        body=f"""[[lane]]
kind = "emulated"
serial = "DEMO-CMB"
cmb = "16MiB"
pmr = "16MiB"
namespaces = [{{ image = "{WORK}/cmb.raw", size = "256MiB" }}]
""",
        all_only=True,
    ),
)
