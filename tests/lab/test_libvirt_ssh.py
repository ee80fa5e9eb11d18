"""A libvirt of another host, for real: from here over ssh to the lab, whose nvlane prepares it for its own domain."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nvlane.lab import Lab

pytestmark = pytest.mark.lab

DOMAIN = "far"
LANE = f"""[[lane]]
kind = "emulated"
name = "disk"
serial = "FAR1"
namespaces = [{{ image = "/var/lib/libvirt/images/{DOMAIN}.qcow2", size = "64MiB" }}]
"""
#: Seconds for one call: that is nvlane and ssh here, and nvlane there, two or three times, where all is emulated.
DEADLINE = 300.0
# What begins here ends with the program that began it, unless that leaves without a word.
STAND = f"""
import os
from nvlane.lab import libvirtd
daemons = libvirtd.daemons()
daemons.__enter__()
domain = libvirtd.defined("{DOMAIN}")
domain.__enter__()
libvirtd.virsh("start", "{DOMAIN}")
os._exit(0)
"""
END = f"""
for verb in destroy undefine; do virsh --connect qemu:///system "$verb" {DOMAIN} || true; done
for name in libvirtd virtlogd; do
    pid=$(cat "/run/$name.pid") && kill "$pid" && timeout 60 tail -f --pid="$pid" /dev/null || true
done
"""
MISSING, ANOTHER = "mv $0 $0.away", "mv $0 $0.away; printf '#!/bin/sh\\necho nvlane 0.0.1\\n' > $0; chmod 755 $0"


@dataclass(frozen=True, kw_only=True)
class Far:
    """The lab as another host: its URI, and nvlane on this one."""

    room: Lab
    directory: Path
    uri: str

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "nvlane", *words]

    def __call__(self, *words: str, uri: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        verb, *rest = words
        connect = [] if verb == "up" else ["--connect", uri or self.uri]
        done = subprocess.run(
            self.argv(verb, *connect, *rest),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.directory, timeout=DEADLINE, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def answered(self, answer: str, *words: str) -> tuple[int, str]:
        """Run it on a terminal, wait for its question, and answer; status, and all that it said."""
        ours, theirs = pty.openpty()
        verb, *rest = words
        argv = self.argv(verb, "--connect", self.uri, *rest)
        child = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, cwd=self.directory)
        os.close(theirs)
        said, until = "", time.monotonic() + DEADLINE
        try:
            while "(y/n)" not in said:
                more = _read(ours)
                assert more, said
                assert time.monotonic() < until, said
                said += more
            os.write(ours, f"{answer}\n".encode())
            while more := _read(ours):
                said += more
            return child.wait(DEADLINE), said
        finally:
            child.kill()
            child.wait()
            os.close(ours)

    def definition(self) -> str:
        words = ["virsh", "--quiet", "--connect", "qemu:///system", "dumpxml", "--inactive", DOMAIN]
        return self.room.run(words).stdout


def _read(terminal: int) -> str:
    """What comes next; '' at the end, and when nothing comes for too long."""
    if not select.select([terminal], [], [], DEADLINE)[0]:
        return ""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:  # EIO: nobody has the other end any more (pty(7))
        return ""


@pytest.fixture
def far(room: Lab, tmp_path: Path) -> Iterator[Far]:
    """Its domain has been started, and boots."""
    key, known = room.directory / "keys" / "user", tmp_path / "known_hosts"
    host_key = (room.directory / "known_hosts").read_text().partition(" ")[2]
    known.write_text(f"[127.0.0.1]:{room.state.port} {host_key}")
    (tmp_path / "disk.toml").write_text(LANE)
    room.run(["python3", "-c", STAND], timeout=DEADLINE)
    try:
        there = f"qemu+ssh://root@127.0.0.1:{room.state.port}/system"
        yield Far(room=room, directory=tmp_path, uri=f"{there}?keyfile={key}&known_hosts={known}")
    finally:
        room.run(["sh", "-uc", END], check=False, timeout=DEADLINE)


def test_a_domain_of_another_host(far: Far) -> None:
    """Shown and asked here, done there: in, looked up inside its guest, and out."""
    before = far.definition()
    _refused_on_the_way(far)
    status, said = far.answered("n", "attach", DOMAIN, "disk.toml")
    assert (status, "--- Original XML" in said, "nothing was changed" in said) == (1, True, True), said
    assert far.definition() == before
    status, said = far.answered("y", "attach", DOMAIN, "disk.toml")
    assert (status, "disk is attached to far" in said) == (0, True), said
    assert "FAR1" in far.definition()
    assert json.loads(far("verify", "--json", DOMAIN).stdout)["verified"] is True
    far("detach", "--yes", DOMAIN, "disk")
    assert far.definition() == before
    (far.directory / "far.toml").write_text(f'[machine]\nname = "{DOMAIN}"\nconnect = "{far.uri}"\n{LANE}')
    assert "FAR1" in far("up", "--print-diff", "far.toml").stdout


def _refused_on_the_way(far: Far) -> None:
    """One clear error each, with what to do; none changes anything there."""
    (far.directory / "relative.toml").write_text(LANE.replace("/var/lib/libvirt/images/", ""))
    wrong = far("attach", DOMAIN, "relative.toml", status=2)
    assert "relative.toml: lane[0].namespaces[0].image: 'far.qcow2' is a relative path" in wrong.stderr
    bare = far.uri.partition("?")[0]
    stranger = far("status", uri=f"{bare}?known_hosts={far.directory}/nobody", status=1)
    assert "Host key verification failed" in stranger.stderr
    assert "compare its key" in stranger.stderr
    denied = far("status", uri=far.uri.replace("/keys/user", "/keys/host"), status=1)
    assert "Permission denied" in denied.stderr
    for change, words in ((MISSING, "has no nvlane"), (ANOTHER, "has nvlane 0.0.1, and this is")):
        far.room.run(["sh", "-euc", change, "/usr/local/bin/nvlane"])
        try:
            assert words in far("status", status=1).stderr
        finally:
            far.room.run(["sh", "-euc", "mv $0.away $0", "/usr/local/bin/nvlane"])
