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

from nvlane.lab import Lab
from nvlane.model.errors import CommandFailed

#: What a line begins with that carries a report.
MARK = "nvlane-report: "
#: Seconds for all of them together.
DEADLINE = 1500.0
_LIST = "/run/lab/tests"
_LAST_LINES = 60


class RemoteTests:
    """One run of pytest in the lab. Reports come in the order in which the items were named."""

    def __init__(self, lab: Lab, config: pytest.Config, nodeids: Sequence[str]) -> None:
        self._config = config
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._early: dict[str, list[pytest.TestReport]] = {}
        lab.put("".join(f"{nodeid}\n" for nodeid in nodeids).encode(), _LIST)
        python = ["env", "-C", "/nvlane", "PYTHONUNBUFFERED=1", "NVLANE_TEST_REPORTS=1", "python3", "-m", "pytest"]
        options = ["-p", "no:cacheprovider", "--quiet", "--tb=short", f"@{_LIST}"]
        self._lines = lab.stream([*python, *options], timeout=DEADLINE, check=False)

    def reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """The reports of one item as soon as it is over: set-up, call, tear-down. None at all is a failure."""
        found = self._early.pop(item.nodeid, [])
        while not (found and found[-1].when == "teardown"):
            report = self._next()
            if isinstance(report, str):
                return [*found, failed(item, report)]
            if report.nodeid == item.nodeid:
                found.append(report)
            else:
                self._early.setdefault(report.nodeid, []).append(report)
        return found

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
