"""The launchers of a real host: QEMU, hot-plug through QMP, every target engine that there is, and libvirt."""

from __future__ import annotations

from nvlane.apply.launch_qemu import QemuLauncher
from nvlane.apply.operations.table import Launchers
from nvlane.apply.plug_qemu import QemuPlugger
from nvlane.targets.table import ENGINES


def default_launchers() -> Launchers:
    return Launchers(machine=QemuLauncher(), plugger=QemuPlugger(), targets=ENGINES)
