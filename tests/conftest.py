"""With `-n 2` (pytest-xdist) the tests run in streams side by side: streams.py says which."""

from __future__ import annotations

import importlib.util

import pytest

from streams import Stream, stream_of

if importlib.util.find_spec("hypothesis"):  # the lab has none
    from hypothesis import HealthCheck, settings

    # How long an example takes says how busy the machine is.
    settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from xdist.scheduler import LoadScopeScheduling

    class Streams(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> Stream:
            return stream_of(nodeid)

    return Streams(config, log)
