"""A headless Chromium, spoken to over a pair of pipes (--remote-debugging-pipe: DevTools messages, each ended by NUL).

No driver program, no port and no package is between: what the page asks of the network is seen, too.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
DEADLINE = 60.0


def program() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One page at a time. `events` are everything that the browser told, oldest first."""

    def __init__(self, to: int, come: int) -> None:
        self._to, self._come = to, come
        self._rest = b""
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + DEADLINE
        while True:
            answer = self._next(until)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def wait(self, method: str) -> None:
        """Until this event has come."""
        until = time.monotonic() + DEADLINE
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._next(until))

    def open(self, file: Path, *, width: int, height: int, mobile: bool) -> None:
        """Show a file on a screen of this size (CSS pixels), loaded to its end."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = str(self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        self.wait("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript is in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, file: Path) -> None:
        """The whole page as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        file.write_bytes(base64.b64decode(data))

    def asked_for(self) -> list[str]:
        """Addresses that the page wanted, beside what it holds itself."""
        requests = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        urls = [str(event["params"]["request"]["url"]) for event in requests]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[dict[str, Any]]:
        """Errors and warnings of the console, and exceptions."""
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in names]

    def _next(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = until - time.monotonic()
            ready = select.select([self._come], [], [], max(left, 0))[0]
            assert ready, f"the browser said nothing within {DEADLINE:g} s"
            data = os.read(self._come, 1 << 20)
            assert data, "the browser ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(line))


@contextlib.contextmanager
def browser(directory: Path) -> Iterator[Browser]:
    """One browser, with a profile in `directory`; it has ended afterwards."""
    found = program()
    assert found is not None
    their_in, to = os.pipe()
    come, their_out = os.pipe()
    log = directory / "browser.log"
    argv = [
        found,
        "--headless",
        "--no-sandbox",  # the tests may run as root, where its sandbox cannot; it shows our own page only
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--hide-scrollbars",
        "--no-first-run",
        "--disable-background-networking",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={directory / 'profile'}",
        "--remote-debugging-pipe",
    ]
    # Descriptors 3 and 4 are the browser's; ours may have these numbers, so they are moved out of the way first.
    high = [os.dup(their_in), os.dup(their_out)]
    ends = [os.dup(descriptor) for descriptor in high]
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, ends[0], 3),
        (os.POSIX_SPAWN_DUP2, ends[1], 4),
    ]
    assert min(ends) > 4
    pid = os.posix_spawn(argv[0], argv, {**os.environ, "HOME": str(directory)}, file_actions=actions, setpgroup=0)
    for descriptor in (their_in, their_out, *high, *ends):
        os.close(descriptor)
    try:
        yield Browser(to, come)
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(to)
        os.close(come)
