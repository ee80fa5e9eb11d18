"""What a QEMU binary says of itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nvlane.apply.linux import LinuxHost
from nvlane.apply.linux_reader import LinuxReader
from nvlane.facts.qemu import read_qemu


@pytest.mark.parametrize(
    ("said", "pmem"),
    [
        ("can't open backing store /proc/nowhere/pmem for guest RAM: No such file or directory", True),
        ("Lack of libpmem support while setting the 'pmem=on' of memory-backend-file", False),
        ("Parameter 'pmem' is unexpected", False),
    ],
)
def test_a_build_without_libpmem_is_told_by_its_refusal(tmp_path: Path, said: str, pmem: bool) -> None:
    """A program that answers as QEMU does: an error to the one question that has no answer, else nothing found."""
    binary = tmp_path / "qemu"
    binary.write_text(
        f"#!{sys.executable}\n"
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    asked = json.loads(line)\n"
        "    reply = {'return': []}\n"
        "    match asked['execute']:\n"
        "        case 'query-version':\n"
        "            reply = {'return': {'qemu': {'major': 10, 'minor': 0, 'micro': 2}}}\n"
        "        case 'object-add':\n"
        f"            reply = {{'error': {{'class': 'GenericError', 'desc': {said!r}}}}}\n"
        "    if 'id' in asked:\n"
        "        print(json.dumps({**reply, 'id': asked['id']}))\n"
    )
    binary.chmod(0o755)
    qemu = read_qemu(LinuxReader(), str(binary))
    assert (qemu.error, qemu.version, qemu.pmem) == ("", "10.0.2", pmem)


def test_there_is_room_for_all_answers_before_anybody_reads() -> None:
    """QEMU that quits drops what its pipe does not hold yet, and it says more than a pipe of 64 KiB holds."""
    size = "import fcntl, sys; sys.stdin.read(); print(fcntl.fcntl(1, fcntl.F_GETPIPE_SZ))"
    assert int(LinuxHost().query([sys.executable, "-c", size], input="?").stdout) >= 1 << 20
