"""Whether QEMU's mapping of a backing has MAP_SYNC, by what smaps shows (lines of a real one, shortened)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nvlane.model.claim import Keeps
from nvlane.model.errors import WireError
from nvlane.qemu.inspect import MemoryDevice
from nvlane.verify.backing import is_synchronous, kept

DAX = """\
7f2a40000000-7f2a7f200000 rw-s 00000000 00:06 342                        /dev/dax0.0
Size:            1034240 kB
VmFlags: rd wr sh mr mw me ms sf hg
"""
CACHED = """\
7f2a3c000000-7f2a40000000 rw-s 00000000 103:03 27                        /var/tmp/a file.raw
Size:              65536 kB
VmFlags: rd wr sh mr mw me ms sd
"""
ANONYMOUS = """\
7f2a8c000000-7f2a8c021000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me nr sd
"""


def test_a_dax_mapping_is_synchronous() -> None:
    assert is_synchronous((ANONYMOUS + DAX + CACHED).splitlines(), "/dev/dax0.0")


def test_the_page_cache_is_not() -> None:
    assert not is_synchronous((DAX + CACHED + ANONYMOUS).splitlines(), "/var/tmp/a file.raw")


def test_every_mapping_must_be() -> None:
    second = CACHED.replace("/var/tmp/a file.raw", "/dev/dax0.0")
    assert not is_synchronous((DAX + second).splitlines(), "/dev/dax0.0")


def test_a_file_that_is_not_mapped_keeps_nothing_by_it() -> None:
    assert not is_synchronous((DAX + CACHED).splitlines(), "/dev/dax1.0")
    assert not is_synchronous([], "/dev/dax0.0")


class Monitor:
    """A QEMU whose only vCPU is a process that is not there."""

    def __init__(self, *, pmem: bool) -> None:
        self._pmem = pmem

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        answers = {"qom-get": self._pmem, "query-cpus-fast": [{"thread-id": 1 << 30}]}
        assert command != "qom-get" or arguments == {"path": "/objects/m", "property": "pmem"}
        return answers[command]


NVDIMM = MemoryDevice(id="n", kind="nvdimm", size=1, memdev="/objects/m")


def test_without_the_promise_nobody_looks_at_mappings() -> None:
    assert kept(Monitor(pmem=False), NVDIMM, "/var/tmp/x.raw") is Keeps.UNTIL_POWER_FAILS
    assert kept(Monitor(pmem=False), NVDIMM, "") is Keeps.NOTHING


def test_mappings_that_cannot_be_seen_are_an_error_with_a_remedy() -> None:
    with pytest.raises(WireError, match="cannot be seen") as caught:
        kept(Monitor(pmem=True), NVDIMM, "/var/tmp/x.raw")
    assert "as root" in caught.value.remedy
