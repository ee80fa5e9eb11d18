"""Runs the tests of tests/lab/inside in the lab, all by one pytest there, and hands out the reports that it sends.

::

    pytest here:  item, item, item ...      each is reported as a test of its own
                    │ reports_of(item)
    Lab.stream:   one line a report  <──  pytest in the lab (tests/lab/inside/conftest.py)
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from session_lab import another_lab, session_lab

from nvlane.lab import Lab, LabStalled
from nvlane.model.errors import CommandFailed

#: What a line begins with that carries a report.
MARK = "nvlane-report: "
#: Seconds for all of them together.
DEADLINE = 1500.0
#: How many labs the tests may use up.
LABS = 4
_LIST = "/run/lab/tests"
_LAST_LINES = 60


class RemoteTests:
    """A run of pytest in the lab. Reports come in the order in which the items were named.

    A lab that stalls (which is the emulator's fault, `LabStalled` says how) is replaced, and the tests that have not
    been reported go on in the new one; a test that fails, fails.
    """

    def __init__(self, config: pytest.Config, nodeids: Sequence[str]) -> None:
        self._config = config
        self._left = list(nodeids)
        self._labs_left = LABS
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._early: dict[str, list[pytest.TestReport]] = {}
        self._lines = self._start(session_lab(config))

    def _start(self, lab: Lab) -> Iterator[str]:
        self._labs_left -= 1
        lab.put("".join(f"{nodeid}\n" for nodeid in self._left).encode(), _LIST)
        python = ["env", "-C", "/nvlane", "PYTHONUNBUFFERED=1", "NVLANE_TEST_REPORTS=1", "python3", "-m", "pytest"]
        options = ["-p", "no:cacheprovider", "--quiet", "--tb=short", f"@{_LIST}"]
        return lab.stream([*python, *options], timeout=DEADLINE, check=False)

    def reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """The reports of one item as soon as it is over: set-up, call, tear-down. None at all is a failure."""
        while not _is_over(found := self._early.setdefault(item.nodeid, [])):
            try:
                report = self._next()
            except LabStalled as error:
                if not self._labs_left:
                    return [failed(item, f"{error}, and so did the labs before it")]
                self._go_on(error)
                continue
            if isinstance(report, str):
                return [*found, failed(item, report)]
            self._early.setdefault(report.nodeid, []).append(report)
            if report.when == "teardown" and report.nodeid in self._left:
                self._left.remove(report.nodeid)
        return found

    def _go_on(self, error: LabStalled) -> None:
        """In another lab, with what has not been reported whole."""
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\n{error.message}; {len(self._left)} tests go on in another one")
        self._early = {nodeid: found for nodeid, found in self._early.items() if _is_over(found)}
        self._lines = self._start(another_lab(self._config))

    def close(self) -> None:
        """Stop the tests in the lab, if they still run."""
        close = getattr(self._lines, "close", None)
        if close is not None:
            close()

    def _next(self) -> pytest.TestReport | str:
        try:
            for line in _until_mark(self._lines, self._last):
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=line)
                if isinstance(report, pytest.TestReport):
                    return report
        except CommandFailed as error:
            self._last.append(str(error))
        return "pytest in the lab ended without a report of this test; its last lines:\n" + "\n".join(self._last)


def _is_over(reports: Sequence[pytest.TestReport]) -> bool:
    return bool(reports) and reports[-1].when == "teardown"


def _until_mark(lines: Iterator[str], last: deque[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        _, mark, data = line.partition(MARK)
        if mark:
            yield json.loads(data)
        elif line.strip():
            last.append(line)


def failed(item: pytest.Item, words: str) -> pytest.TestReport:
    """The report of a test that could not be run."""
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords=dict.fromkeys(item.keywords, 1),
        outcome="failed",
        longrepr=words,
        when="call",
    )
