"""One lab for all tests here: started when the first test wants it, ended with the session, also after Ctrl-C."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from session_lab import another_lab, end_session_lab, session_lab, stalled

from nvlane.lab import Lab

HERE = Path(__file__).parent


@pytest.fixture
def room(request: pytest.FixtureRequest) -> Lab:
    """The lab; asked for by every test, since one that stalled is replaced."""
    return session_lab(request.config)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """A test that failed in a lab that had stalled, which is the emulator's fault, is done again in another lab."""
    if "room" not in getattr(item, "fixturenames", ()) or not item.path.parent.samefile(HERE):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(report.failed for report in reports) and stalled(item.config):
        another_lab(item.config)
        item._initrequest()  # type: ignore[attr-defined]
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    end_session_lab(session.config)
