"""tlshd at both ends of a network of the lab, and an ear on the wire between them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from fabric_room import at_target
from lab_drives import wait

from nvlane.apply import process

#: ETH_P_ALL: frames of every protocol, in both directions (packet(7)).
_EVERY = 0x0003
_ROOM = 64 << 20
_SAMPLE = 32


def make_key(path: Path) -> Path:
    path.write_text(process.run(["nvme", "gen-tls-key"]).stdout)
    path.chmod(0o600)
    return path


@contextlib.contextmanager
def daemons(directory: Path) -> Iterator[None]:
    """A tlshd in each of the two network name spaces, for the kernel asks in that of the socket."""
    settings = directory / "tlshd.conf"
    settings.write_text("[debug]\nloglevel=1\ntls=0\nnl=0\n[authenticate]\n")
    argv = ["tlshd", "-s", "-c", str(settings)]
    logs = [directory / f"tlshd-{end}.log" for end in ("host", "target")]
    started = [process.spawn(argv, log=logs[0])]
    with at_target():
        started.append(process.spawn(argv, log=logs[1]))
    try:
        for log in logs:
            wait("tlshd has the keyring", lambda log=log: "'.nvme' linked" in log.read_text(), 60.0)  # type: ignore[misc]
        yield
    finally:
        for pid in started:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


class Ear:
    """What went over an interface while it listened."""

    def __init__(self) -> None:
        self.heard = b""

    def seen(self, data: bytes) -> int:
        """How many pages of this data went by as they are, by their first bytes."""
        return sum(data[at : at + _SAMPLE] in self.heard for at in range(0, len(data), 4096))


@contextlib.contextmanager
def listening(interface: str) -> Iterator[Ear]:
    ear, frames, ended = Ear(), bytearray(), threading.Event()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY)) as wire:
        # SO_RCVBUFFORCE, which has no name in Python: nothing shall be lost while the processor is busy.
        wire.setsockopt(socket.SOL_SOCKET, 33, _ROOM)
        wire.bind((interface, 0))
        wire.settimeout(0.2)

        def listen() -> None:
            while True:
                try:
                    frames.extend(wire.recv(1 << 17))
                except TimeoutError:
                    if ended.is_set():
                        return

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield ear
        finally:
            ended.set()
            thread.join(60.0)
            assert not thread.is_alive()
            ear.heard = bytes(frames)
