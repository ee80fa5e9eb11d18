"""The first process of a room: it waits for whatever loses its parent, until the room is ended."""

from __future__ import annotations

import os
import signal
import time

# Ended by SIGKILL from outside, and with it everything in its name space of processes (pid_namespaces(7)).
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print("ready", flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
