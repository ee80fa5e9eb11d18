"""The capability matrix: every way by every operation. `docs/lanes.md` is made of it, and `nvlane advise` rests on it.

To fill a cell: write the test that shows it, then cite it here. To add a lane: a way in `ways.py`, its cells in one of
the `*_cells.py`, a line here, and how it is written as a spec in `draft.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nvlane.advise import block_cells, memory_cells, vfio_cells, vhost_cells, ways
from nvlane.advise.cell import Cell, Cells, Operation, Way

_CELLS: Final[Mapping[str, Cells]] = {
    ways.EMULATED.name: block_cells.EMULATED,
    ways.PASSTHROUGH.name: vfio_cells.PASSTHROUGH,
    ways.PASSTHROUGH_VF.name: vfio_cells.PASSTHROUGH_VF,
    ways.USERSPACE.name: block_cells.USERSPACE,
    ways.USERSPACE_NVME.name: block_cells.USERSPACE_NVME,
    ways.VHOST_DRIVE.name: vhost_cells.VHOST_DRIVE,
    ways.VHOST_FILE.name: vhost_cells.VHOST_FILE,
    ways.VHOST_DAEMON.name: vhost_cells.VHOST_DAEMON,
    ways.NVDIMM.name: memory_cells.NVDIMM,
    ways.NVDIMM_DAX.name: memory_cells.NVDIMM_DAX,
    ways.VIRTIO_PMEM.name: memory_cells.VIRTIO_PMEM,
    ways.FABRICS.name: block_cells.FABRICS,
}


def cell(way: Way, operation: Operation) -> Cell:
    """The answer of one way to one operation."""
    return _CELLS[way.name][operation]
