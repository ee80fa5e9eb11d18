"""The tree of errors, each with the exit status that the command line gives it.

::

    NvlaneError            1  anything nvlane itself says went wrong
    ├── SpecError          2  your file: the place, the key, the nearest key
    ├── Refused            3  unsafe: the reasons, and what would make each safe
    ├── HostError          1  the world: a command, its exit status, its last words
    ├── WireError          1  a peer broke its protocol or its deadline
    ├── VerifyFailed       4  the guest did not see what the lane promised
    ├── NotRestored        5  something could not be put back
    └── Bug                1  nvlane contradicts itself

A caller catches the narrowest that it can do something about. `remedy` is a sentence for a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class NvlaneError(Exception):
    """Base of every error that nvlane raises on purpose."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def details(self) -> Mapping[str, Any]:
        """What a program wants to know beside the message, as plain JSON values."""
        return {}

    def __str__(self) -> str:
        return f"{self.message}\n  remedy: {self.remedy}" if self.remedy else self.message


class SpecError(NvlaneError):
    """The user's file or argument is wrong.

    `place` is where in the spec, as `machine.memory` or `lane[2].drive`; `source` and `line` where in which file
    (line 0: not known). The message starts with them, as compilers write it: `sles15.toml:12: lane[2].drive: ...`.
    """

    exit_status = 2

    def __init__(self, message: str, *, place: str = "", source: str = "", line: int = 0, remedy: str = "") -> None:
        where = f"{source}:{line}" if source and line else source
        super().__init__(": ".join(part for part in (where, place, message) if part), remedy=remedy)
        self.place = place
        self.source = source
        self.line = line

    def details(self) -> Mapping[str, Any]:
        return {"place": self.place, "source": self.source, "line": self.line}


class Refused(NvlaneError):
    """What was asked for is unsafe or impossible here. Nothing was changed."""

    exit_status = 3


class HostError(NvlaneError):
    """The host did not do what it was told."""


class CommandFailed(HostError):
    """A command failed; the message holds it ready to paste, its status and its last words."""

    def __init__(self, command: str, status: str, last_words: str, *, remedy: str = "") -> None:
        words = "\n".join(f"  | {line}" for line in last_words.strip().splitlines()[-12:])
        super().__init__(f"command failed ({status}):\n  $ {command}\n{words}".rstrip(), remedy=remedy)
        self.command = command
        self.status = status
        self.last_words = last_words


class WireError(NvlaneError):
    """A peer (QMP, guest agent, probe, target) broke its protocol or missed its deadline."""


class VerifyFailed(NvlaneError):
    """At least one claim was not true inside the guest."""

    exit_status = 4


class NotRestored(NvlaneError):
    """The undo ran, and something could not be put back; the message names it."""

    exit_status = 5


class Bug(NvlaneError):
    """nvlane contradicts itself: please report it."""
