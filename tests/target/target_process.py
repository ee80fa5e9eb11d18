"""nvlane-target as a process of a test: started, killed, started again with what it had saved."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from nvlane.targets.program import packaged_target
from nvlane.wire.jsonrpc import JsonRpc
from nvlane.wire.lines import PeerClosed

DEADLINE = 20.0


def program() -> Path | None:
    """The program under test, if it has been built."""
    path = Path(os.environ.get("NVLANE_TARGET") or packaged_target())
    return path if os.access(path, os.X_OK) else None


class Target:
    """One target; as a context manager it is ended. Its sockets, state and log are in `directory`."""

    def __init__(self, directory: Path, *options: str, binary: Path | None = None) -> None:
        self.directory = directory
        self._options = options
        built = binary or program()
        assert built is not None, "nvlane-target has not been built"
        self.binary = built
        self._copies = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = [str(self.binary), "-S", str(self.directory), "-r", str(self.rpc_socket), "-m", "0x1"]
        words += ["--state", str(self.directory / "state.json"), "--allow-path", str(self.directory), *self._options]
        with (self.directory / "target.log").open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, cwd=self.directory)
        until = time.monotonic() + DEADLINE
        while True:
            assert self.process.poll() is None, f"it ended: {self.process.returncode}\n{self.last_words()}"
            with contextlib.suppress(PeerClosed):
                self.call("framework_wait_init")
                return
            assert time.monotonic() < until, f"it does not answer\n{self.last_words()}"
            time.sleep(0.005)

    @property
    def rpc_socket(self) -> Path:
        return self.directory / "rpc.sock"

    def socket(self, controller: str) -> Path:
        return self.directory / controller

    def call(self, method: str, **params: Any) -> Any:
        with JsonRpc.connect(str(self.rpc_socket), pid=self.process.pid) as rpc:
            return rpc.call(method, params)

    def last_words(self) -> str:
        return (self.directory / "target.log").read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=DEADLINE)

    def replaced_by(self, binary: Path) -> None:
        """The program is another file from the next start on."""
        self._copies += 1
        self.binary = Path(shutil.copy2(binary, self.directory / f"nvlane-target-{self._copies}"))

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
