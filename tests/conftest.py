"""With `-n 2` (pytest-xdist) the tests run in two streams side by side: those that need the lab, and all others.

The lab's tests are most of the time and wait a good part of it; nothing of theirs is of this host but the lab's own
processes. The other tests use this host, some the same part of it, so they stay one after another.
"""

from __future__ import annotations

import importlib.util

import pytest

if importlib.util.find_spec("hypothesis"):  # the lab has none
    from hypothesis import HealthCheck, settings

    # How long an example takes says how busy the machine is.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")

LAB, HOST = "tests/lab", "tests"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class TwoStreams(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return LAB if nodeid.startswith(f"{LAB}/") else HOST

    return TwoStreams(config, log)
