"""Runs the tests of tests/lab/inside in the lab, all by one pytest there, and hands out the reports that it sends.

::

    pytest here:  item, item, item ...      each is reported as a test of its own
                    │ reports_of(item)
    Lab.stream:   one line a report  <──  pytest in the lab (tests/lab/inside/conftest.py)
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from session_lab import another_lab, session_lab, tell

from nvlane.lab import Kernel, LabStalled
from nvlane.lab.machine import Accelerator
from nvlane.model.errors import CommandFailed

#: What a line begins with that carries a report.
MARK = "nvlane-report: "
#: Seconds without a word after which a test hangs; before that, pytest in the lab shows where it stands.
PATIENCE = 420.0
SHOWN_AFTER = 300
#: How many labs the tests may use up.
LABS = 6
#: What a test says whose guest fell silent. An emulated lab may be at fault (a processor of its that lost an interrupt
#: for a moment, a guest that was given one twice, lab/emulator.py): such a test is done once more, in another lab, and
#: that is said.
SILENT_GUEST = re.compile(r"DeadlineMissed|did not come up within|no answer (?:to \w+ )?within")
_LIST = "/run/lab/tests"
_LAST_LINES = 60
_CONSOLE_LINES = 12


class RemoteTests:
    """A run of pytest in the lab. Reports come in the order in which the items were named.

    A lab that stalls (which is the emulator's fault, `LabStalled` says how) is replaced, and the tests that have not
    been reported go on in the new one, with the one that failed in the lab that had stalled. In an emulated lab a test
    whose guest fell silent has a second chance as well, one only. Any other test that fails, fails; so does one that
    hangs, or that ends pytest, and those after it go on in another lab.
    """

    def __init__(self, config: pytest.Config, nodeids: Sequence[str], kernel: Kernel) -> None:
        self._config = config
        self._kernel = kernel
        self._left = list(nodeids)
        self._labs_left = LABS
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._early: dict[str, list[pytest.TestReport]] = {}
        self._once_more: set[str] = set()
        self._lab = session_lab(config, kernel)
        self._lines = self._start()

    def _start(self) -> Iterator[str]:
        self._labs_left -= 1
        self._last.clear()
        self._lab.put("".join(f"{nodeid}\n" for nodeid in self._left).encode(), _LIST)
        python = ["env", "-C", "/nvlane", "PYTHONUNBUFFERED=1", "NVLANE_TEST_REPORTS=1", "python3", "-m", "pytest"]
        options = ["-p", "no:cacheprovider", "--quiet", "--tb=short", "-o", f"faulthandler_timeout={SHOWN_AFTER}"]
        return self._lab.stream([*python, *options, f"@{_LIST}"], patience=PATIENCE, check=False)

    def reports_of(self, item: pytest.Item) -> list[pytest.TestReport]:
        """The reports of one item as soon as it is over: set-up, call, tear-down. None at all is a failure."""
        while not _is_over(found := self._early.setdefault(item.nodeid, [])):
            try:
                report = self._next()
                if isinstance(report, str) or report.failed:
                    self._lab.channel.ping()
            except LabStalled as error:
                if not self._labs_left:
                    return [failed(item, f"{error}, and so did the labs before it")]
                self._in_another_lab(error.message)
                continue
            if isinstance(report, str):
                return [*found, self._lost(item, report)]
            if self._is_worth_another(report):
                self._once_more.add(report.nodeid)
                self._in_another_lab(f"{report.nodeid}: its guest fell silent")
                continue
            self._early.setdefault(report.nodeid, []).append(report)
            if report.when == "teardown" and report.nodeid in self._left:
                self._left.remove(report.nodeid)
        return found

    def _is_worth_another(self, report: pytest.TestReport) -> bool:
        """Whether to do this one again: it failed for a guest's silence, under emulation, for the first time."""
        return (
            report.failed
            and report.nodeid in self._left
            and report.nodeid not in self._once_more
            and self._labs_left > 0
            and self._lab.state.accelerator == Accelerator.TCG
            and SILENT_GUEST.search(report.longreprtext) is not None
        )

    def _lost(self, item: pytest.Item, why: str) -> pytest.TestReport:
        """The report of an item that pytest in the lab did not report whole."""
        if item.nodeid in self._left:
            self._left.remove(item.nodeid)
        if self._left and self._labs_left:
            self._in_another_lab(f"no report of {item.nodeid}")
        return failed(item, why)

    def _in_another_lab(self, why: str) -> None:
        """Go on there with what has not been reported whole."""
        console = (self._lab.directory / "console.log").read_text(errors="replace").splitlines()[-_CONSOLE_LINES:]
        tell(f"{why}; {len(self._left)} tests go on in another lab", console)
        self.close()
        self._early = {nodeid: found for nodeid, found in self._early.items() if _is_over(found)}
        self._lab = another_lab(self._config, self._kernel)
        self._lines = self._start()

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
            self._last.append(f"{error.command}: {error.status}")
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
