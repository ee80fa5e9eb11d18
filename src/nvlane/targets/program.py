"""The program `nvlane-target` as it was built with this nvlane, and the console command of the same name.

The command is a script that becomes the program (execve(2)): a wheel or a checkout can be moved, and a newly built
program is what the next call runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, NoReturn

from nvlane.apply import process
from nvlane.model.errors import HostError

NAME: Final = "nvlane-target"


def packaged_target() -> str:
    """Its absolute path, whether or not it has been built."""
    return str(Path(__file__).resolve().parent.parent / "_bin" / NAME)


def run() -> NoReturn:
    """`nvlane-target ...`: the program with the same arguments."""
    try:
        process.become((packaged_target(), *sys.argv[1:]))
    except HostError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        sys.exit(1)
