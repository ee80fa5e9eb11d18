"""One lab for all tests here: started when the first test wants it, ended with the session, also after Ctrl-C."""

from __future__ import annotations

import pytest
from session_lab import end_session_lab, session_lab

from nvlane.lab import Lab


@pytest.fixture
def room(request: pytest.FixtureRequest) -> Lab:
    """The lab; asked for by every test, since one that stalled is replaced."""
    return session_lab(request.config)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    end_session_lab(session.config)
