"""Starting processes that outlive nvlane, QEMU and vhost-user targets, and ending exactly those again.

::

    nvlane --(1) listens on--> UNIX sockets, 0600, in a directory, 0700
       |
       +----(2) spawns---> the process, with those sockets as descriptors 10, 11, ... and NVLANE_TOKEN in its environment
       +----(3) journals-> pid and start time
       +----(4) waits----> ready(), with a deadline

The token is drawn and journaled before the process exists. Whoever has it in its environment is ours, wherever nvlane
was killed in between; a process that only has the same id, or that names our paths on its command line, is not.
What to start is the business of a `Launcher`: one for QEMU, one for each kind of target.
"""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from nvlane.apply.operations.directories import missing_directories, remove_directories
from nvlane.apply.operations.found import FoundNothing, FoundProcess, MadeProcess
from nvlane.apply.operations.operation import PUT_BACK, Idempotent, Keep, Outcome, already, failed, kept
from nvlane.apply.operations.processes import TOKEN_NAME, find_by_token, start_time_of
from nvlane.model.errors import HostError, NvlaneError
from nvlane.model.host import Host
from nvlane.plan.step import Inverse, StartMachine, StartTarget, StopMachine, StopTarget

#: The first descriptor number of a handed-over socket; 0 to 2 are the standard ones, the rest leaves room.
FIRST_DESCRIPTOR: Final = 10
#: Seconds: until a process must be ready; and from quit to SIGTERM, from SIGTERM to SIGKILL, from SIGKILL to giving up.
READY_DEADLINE: Final = 60.0
QUIT_DEADLINE: Final = 10.0
TERM_DEADLINE: Final = 10.0
KILL_DEADLINE: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to start, apart from its arguments. `sockets`: name -> path; `files`: everything else that the process or
    its launcher leaves (log, console log), removed when it is stopped; `memlock` in bytes."""

    name: str
    directory: str
    log: str
    sockets: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    memlock: int | None = None


class Launcher(Protocol):
    """How to start one kind of process.

    `argv` gets the number that each socket of `launch().sockets` has in the child, by name. `ready` returns when the
    process answers; it raises HostError (with the last words of the log) when it ended or the deadline (seconds) is
    over. `quit` asks it politely to end, and returns at once; any failure of it may be raised as NvlaneError or
    OSError: the caller goes on with SIGTERM.
    """

    def launch(self, step: Any) -> Launch: ...
    def argv(self, step: Any, descriptors: Mapping[str, int]) -> tuple[str, ...]: ...
    def ready(self, step: Any, pid: int, deadline: float) -> None: ...
    def quit(self, directory: str, name: str, deadline: float) -> None: ...
