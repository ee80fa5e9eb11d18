"""One vhost-user target: what it can serve (`plan.engine.Engine`) and how it is started (`apply`'s
`Launcher`).

A new engine is a new file beside this one, with a class that has these members, named once in
`targets.table`.
"""

from __future__ import annotations

from typing import Protocol

from nvlane.apply.operations.launch import Launcher
from nvlane.plan.engine import Engine


class TargetEngine(Engine, Launcher, Protocol):
    """Both halves. The first is pure and is handed to lanes; the second starts and stops a `StartTarget`."""
