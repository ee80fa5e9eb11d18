"""libvirt in the lab: what its tests need beside its daemons and domains, which the demo has too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab_drives import wait

from nvlane.apply import process
from nvlane.lab import libvirtd
from nvlane.lab.libvirtd import virsh

#: Seconds for a guest to boot: its processor is emulated twice over, and others want the real one.
GUEST_DEADLINE = 300.0
_PAGES = Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages")
_MOUNT = "/dev/hugepages"


@contextlib.contextmanager
def hugepages(count: int) -> Iterator[None]:
    """Pages that somebody has reserved for a domain, with the mount that libvirt takes them from."""
    before = _PAGES.read_text()
    _PAGES.write_text(str(int(before) + count))
    Path(_MOUNT).mkdir(exist_ok=True)
    process.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", _MOUNT])
    try:
        yield
    finally:
        process.run(["umount", _MOUNT])
        _PAGES.write_text(before)


@contextlib.contextmanager
def running(name: str, **shape: Any) -> Iterator[str]:
    """A domain that runs, its guest up; its definition."""
    with libvirtd.defined(name, **shape) as before:
        virsh("start", name)
        try:
            wait("the guest is up", lambda: "state='connected'" in virsh("dumpxml", name), GUEST_DEADLINE)
        except AssertionError as error:
            console = libvirtd.console_of(name).read_text(errors="replace")[-2000:]
            raise AssertionError(f"{error}; its console:\n{console}") from error
        yield before


def lane(directory: Path, name: str, text: str) -> Path:
    """A file with one lane."""
    path = directory / f"{name}.toml"
    path.write_text(f'[[lane]]\nname = "{name}"\n{text}\n')
    return path
