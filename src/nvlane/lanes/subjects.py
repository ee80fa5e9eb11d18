"""What the facts must tell of for a spec: the paths and drives that it names. Facts are read once, for these."""

from __future__ import annotations

from nvlane.spec.document import Spec
from nvlane.spec.lane import Emulated, Fabrics, Nvdimm, Passthrough, Userspace, VhostUser


def paths(spec: Spec) -> tuple[str, ...]:
    """Every file or device that the spec names, each once, in order."""
    named: list[str] = [spec.machine.image, spec.machine.kernel, spec.machine.initrd]
    for lane in spec.lanes:
        match lane:
            case Emulated():
                named += [path for ns in lane.namespaces for path in (ns.image, ns.device)]
                named.append(lane.pmr_file)
            case VhostUser():
                named.append(lane.file)
            case Nvdimm():
                named.append(lane.path)
            case Passthrough() | Userspace() | Fabrics():
                pass
    return tuple(dict.fromkeys(path for path in named if path))


def drives(spec: Spec) -> tuple[str, ...]:
    """Every drive that the spec names, as it names it."""
    named = [lane.drive for lane in spec.lanes if isinstance(lane, Passthrough | Userspace | VhostUser)]
    return tuple(dict.fromkeys(drive for drive in named if drive))


def content_paths(spec: Spec) -> tuple[str, ...]:
    """The paths whose content the guest must find again: what lanes serve as it is, the boot image left out."""
    boot = {spec.machine.image, spec.machine.kernel, spec.machine.initrd}
    return tuple(path for path in paths(spec) if path not in boot)
