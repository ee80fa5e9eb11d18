"""The session's lab: one for all tests, with a name of its own, so that a lab of the user's is left alone; and after
it, one for those that need the full kernel."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence

import pytest

from nvlane import lab
from nvlane.lab import Kernel, Lab, LabMachine, LabStalled

NAME = f"test-{os.getpid()}"
_LAB = pytest.StashKey[Lab]()


def session_lab(config: pytest.Config, kernel: Kernel = Kernel.CLOUD) -> Lab:
    """The lab, started by the first who asks for it; one with another kernel ends then."""
    there = config.stash.get(_LAB, None)
    if there is not None and there.state.kernel != kernel:
        end_session_lab(config)
        there = None
    if there is None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        words = reporter.write_line if reporter is not None and config.get_verbosity() > 0 else lab.quiet
        there = config.stash[_LAB] = lab.up(_machine(kernel), progress=words)
    return there


def _machine(kernel: Kernel) -> LabMachine:
    """With the full kernel it keeps a page of 1 GiB, which only the start of a host can promise: of the first of two
    nodes' GiBs the kernel lies in one, wherever it put itself (KASLR), its tables in another, the firmware's in a
    third. What is not touched costs nothing."""
    if kernel is Kernel.CLOUD:
        return LabMachine(name=NAME)
    return LabMachine(name=NAME, kernel=kernel, memory=12 << 30, append="hugepagesz=1G hugepages=0:1")


def another_lab(config: pytest.Config, kernel: Kernel = Kernel.CLOUD) -> Lab:
    """A new one in its place, for one that stalled."""
    end_session_lab(config)
    return session_lab(config, kernel)


def stalled(config: pytest.Config) -> bool:
    """Whether there is a lab, and it hangs."""
    there = config.stash.get(_LAB, None)
    if there is None or not there.alive:
        return False
    try:
        there.channel.ping()
    except LabStalled as error:
        tell(f"{error.message}; the test is done again in another lab")
        return True
    return False


def tell(text: str, console: Sequence[str] = ()) -> None:
    """A warning, which the summary shows, also of a stream of its own (tests/conftest.py): with the console's end."""
    warnings.warn(pytest.PytestWarning("\n".join([text, *(f"  console | {line}" for line in console)])), stacklevel=1)


def end_session_lab(config: pytest.Config) -> None:
    """End it, if it was started."""
    there = config.stash.get(_LAB, None)
    if there is not None:
        del config.stash[_LAB]
        there.down()
