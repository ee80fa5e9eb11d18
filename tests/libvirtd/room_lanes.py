"""Every lane that needs no hardware, as files of nvlane attach."""

from __future__ import annotations

from room_domains import IMAGES

LANES = {
    "emu": f'kind = "emulated"\nserial = "12345"\nwrite_proof = true\n'
    f'namespaces = [{{ image = "{IMAGES}/emu.qcow2", size = "64MiB" }}]',
    "blk": f'kind = "vhost-user"\nfrontend = "virtio-blk"\nfile = "{IMAGES}/blk.img"\nsize = "64MiB"\n'
    "write_proof = true",
    "scsi": f'kind = "vhost-user"\nfrontend = "virtio-scsi"\nfile = "{IMAGES}/scsi.img"\nsize = "64MiB"\n'
    "write_proof = true",
    "nv": f'kind = "nvdimm"\nbacking = "file"\npath = "{IMAGES}/nv.img"\nsize = "128MiB"\ndevice = "nvdimm"',
    "pmem": f'kind = "nvdimm"\nbacking = "file"\npath = "{IMAGES}/pmem.img"\nsize = "128MiB"\ndevice = "virtio-pmem"',
}
#: What the diff of each shows, whatever the release.
MARKS = {
    "emu": '"serial":"12345"',
    "blk": "<disk type='vhostuser' device='disk'>",
    "scsi": "vhost-user-scsi-pci",
    "nv": "<memory model='nvdimm' access='shared'>",
    "pmem": "virtio-pmem",
}
