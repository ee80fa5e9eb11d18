"""The lab: a whole hardware-free host. IOMMU, NVMe drives, an NVDIMM, and nested KVM, in one virtual machine.

::

    with lab.up(progress=lab.to_stderr) as room:
        room.run(["nvlane", "doctor"])
        room.pull("LABDRIVE1")
        room.reset()
"""

from nvlane.lab.channel import LabStalled
from nvlane.lab.drives import DRIVES, LabDrive
from nvlane.lab.machine import Kernel, LabMachine
from nvlane.lab.session import Lab, find, known, look
from nvlane.lab.start import quiet, to_stderr, up

__all__ = [
    "DRIVES",
    "Kernel",
    "Lab",
    "LabDrive",
    "LabMachine",
    "LabStalled",
    "find",
    "known",
    "look",
    "quiet",
    "to_stderr",
    "up",
]
