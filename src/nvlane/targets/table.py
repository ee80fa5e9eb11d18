"""The engines by the name that a spec gives them in `lane.engine`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nvlane.targets.engine import TargetEngine
from nvlane.targets.native import NativeTarget
from nvlane.targets.storage_daemon import StorageDaemon

ENGINES: Final[Mapping[str, TargetEngine]] = {engine.name: engine for engine in (NativeTarget(), StorageDaemon())}
