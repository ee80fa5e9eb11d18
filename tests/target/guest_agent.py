"""Runs inside the test guest: commands that come as JSON lines over a virtio-serial port, several at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

PORT = "org.nvlane.test.0"


def port() -> Path:
    for name in Path("/sys/class/virtio-ports").glob("*/name"):
        if name.read_text().strip() == PORT:
            return Path("/dev", name.parent.name)
    sys.exit(f"no port {PORT}")


def answer(request: dict[str, Any], stream: BinaryIO, lock: threading.Lock) -> None:
    done = subprocess.run(request["argv"], input=request["stdin"].encode(), capture_output=True, check=False)
    reply = {
        "id": request["id"],
        "status": done.returncode,
        "stdout": done.stdout.decode(errors="replace"),
        "stderr": done.stderr.decode(errors="replace"),
    }
    rest = json.dumps(reply).encode() + b"\n"
    with lock:
        while rest:
            # The port takes 32 KiB at a time (drivers/char/virtio_console.c, port_fops_write).
            rest = rest[stream.write(rest) :]


def main() -> None:
    lock = threading.Lock()
    with port().open("r+b", buffering=0) as stream:
        stream.write(b'{"id": 0}\n')
        rest = b""
        while data := stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                threading.Thread(target=answer, args=(json.loads(line), stream, lock)).start()


main()
