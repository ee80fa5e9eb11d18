"""The tests of this directory change a host, so they run in the lab and nowhere else.

Collected outside, they are sent into the session's lab, all by one pytest there, and each is reported as it ends.
Inside, that pytest prints every report as a line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from remote_tests import MARK, RemoteTests, failed

from nvlane.apply.linux import LinuxHost
from nvlane.apply.snapshot import differences, host_snapshot
from nvlane.apply.store import Store
from nvlane.lab import Kernel
from nvlane.model.errors import NvlaneError
from streams import Stream, stream_of

HERE = Path(__file__).parent
IN_LAB = os.environ.get("NVLANE_LAB") == "1"
_REMOTE = pytest.StashKey[dict[tuple[Kernel, Stream | None], RemoteTests | str]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs another kernel comes last of all, in a lab of its own: there is one lab at a time."""
    items.sort(key=lambda item: _is_for_lab(item) and _kernel(item) is not Kernel.CLOUD)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Outside: wait for the reports of this test and pass them on. Inside, and without the mark: pytest's own way."""
    if IN_LAB or not _is_for_lab(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    remote = _remote(item)
    for report in [failed(item, remote)] if isinstance(remote, str) else remote.reports_of(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What a test outside had set up for this folder ends with its last test, as in pytest's own protocol.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def _remote(item: pytest.Item) -> RemoteTests | str:
    """The run in the lab with this test's kernel, of this test's stream, started by the first test, or why there is
    none."""
    runs, key = item.config.stash.setdefault(_REMOTE, {}), _run_of(item)
    if key not in runs:
        wanted = [each.nodeid for each in item.session.items if _is_for_lab(each) and _run_of(each) == key]
        try:
            runs[key] = RemoteTests(item.config, wanted, key[0])
        except NvlaneError as error:
            runs[key] = f"the lab did not start: {error}"
    return runs[key]


def _is_for_lab(item: pytest.Item) -> bool:
    """Of this directory (pytest asks every conftest about every item), and marked."""
    return item.path.is_relative_to(HERE) and item.get_closest_marker("lab") is not None


def _run_of(item: pytest.Item) -> tuple[Kernel, Stream | None]:
    """Without streams (`-n`) there is one run a kernel: its tests come in the order of their files."""
    streams = hasattr(item.config, "workerinput")
    return _kernel(item), stream_of(item.nodeid) if streams else None


def _kernel(item: pytest.Item) -> Kernel:
    return Kernel.FULL if item.get_closest_marker("full_kernel") else Kernel.CLOUD


def pytest_sessionfinish(session: pytest.Session) -> None:
    for remote in session.config.stash.get(_REMOTE, {}).values():
        if isinstance(remote, RemoteTests):
            remote.close()


class _Reports:
    """Inside: prints each report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        assert terminal is not None
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        terminal.ensure_newline()
        terminal.write_line(MARK + json.dumps(data))
        terminal.flush()


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("NVLANE_TEST_REPORTS") == "1":
        config.pluginmanager.register(_Reports(config))


@pytest.fixture(scope="module", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After the tests of each file the host is as it was before them."""
    if not IN_LAB:
        yield
        return
    host = LinuxHost()
    store = Store.of(host)
    before = host_snapshot(host, str(store.state), str(store.runtime))
    yield
    assert differences(before, host_snapshot(host, str(store.state), str(store.runtime))) == ()
