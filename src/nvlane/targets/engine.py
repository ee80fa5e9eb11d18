"""One vhost-user target: what it can serve (`plan.engine.Engine`) and how it is started (`apply`'s
`Launcher`).

A new engine is a new file beside this one, with a class that has these members, named once in
`targets.table`.
"""

from __future__ import annotations

from typing import Protocol

from nvlane.apply.operations.launch import Launcher
from nvlane.plan.engine import Engine
from nvlane.plan.step import StartTarget


class TargetEngine(Engine, Launcher, Protocol):
    """Both halves. The first is pure and is handed to lanes; the second starts and stops a `StartTarget`."""

    def calls(self, step: StartTarget) -> tuple[str, ...]:
        """What it is told when it runs, a line each, for a plan to show: method and parameters as JSON."""
        ...
