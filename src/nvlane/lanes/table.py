"""Every lane that there is, by the class of its table in the spec. A new lane is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from nvlane.lanes.context import Lane
from nvlane.lanes.emulated import Emulated
from nvlane.lanes.fabrics import Fabrics
from nvlane.lanes.nvdimm import Nvdimm
from nvlane.lanes.passthrough import Passthrough
from nvlane.lanes.userspace import Userspace
from nvlane.lanes.vhost_user import VhostUser
from nvlane.spec.lane import LaneKind

LANES: Mapping[LaneKind, Lane] = {
    lane.kind: lane for lane in (Emulated(), Passthrough(), Userspace(), VhostUser(), Nvdimm(), Fabrics())
}
