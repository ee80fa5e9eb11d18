"""fio in a probe guest: it writes, and reads back what it wrote, while something is done to its disk."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from at_work import MIB
from lab_drives import wait

from nvlane.apply import fio_kit
from nvlane.apply.initramfs import build_probe_guest
from nvlane.model.errors import WireError
from nvlane.verify.probe import ProbeGuest

#: What fio writes, and how many blocks a second: slow enough not to be through before anything is done to its disk.
SIZE, BLOCK, RATE = 2 * MIB, 4096, 12
#: Seconds for a program that an emulated processor emulates.
_PATIENCE = 290.0
#: In the guest; its words outlive the connection that asked for it.
_LOG = "/fio.log"


def with_fio() -> dict[str, object]:
    """The keys of a machine that boots the probe guest with this host's fio."""
    guest = build_probe_guest(os.uname().release, pmem_tools=False, fio=fio_kit.host_kit())
    return {"memory": "512MiB", "kernel": guest.kernel, "initrd": guest.initrd, "cmdline": guest.cmdline}


@contextmanager
def fio_at_work(runtime: Path, device: str, offset: int, blocks: Callable[[], int]) -> Iterator[None]:
    """fio begins in the guest behind `runtime`, and is at work from the beginning of the body to its end; `blocks`
    says how many of its writes are complete. How it ends, `fio_verified` asks."""
    job = f"--rw=randwrite --bs={BLOCK} --offset={offset} --size={SIZE} --rate_iops=,{RATE} --direct=1 --thread"
    proof = f"--verify=crc32c --verify_fatal=1 --do_verify=1 --allow_file_create=0 --output={_LOG}"
    argv = [*fio_kit.words(fio_kit.PLACE), "--name=work", f"--filename={device}", *job.split(), *proof.split()]
    with ThreadPoolExecutor(max_workers=1) as pool:
        before = blocks()
        ended = pool.submit(_run, runtime, argv)
        wait("fio writes", lambda: blocks() > before + RATE or ended.done(), _PATIENCE)
        assert not ended.done(), ended.result()
        yield
        assert blocks() < before + SIZE // BLOCK, "fio was through before the end"


def _run(runtime: Path, argv: list[str]) -> object:
    """What fio said; nothing, when the QEMU that was asked is gone before the end."""
    try:
        with ProbeGuest(runtime / "probe.sock") as guest:
            guest.wait_until_up(deadline=60.0)
            return guest.call("exec", deadline=_PATIENCE + 10, argv=argv, timeout_ms=int(_PATIENCE * 1000))
    except WireError as error:
        return error


def fio_verified(runtime: Path) -> None:
    """Every block was written and read back as it was written; to be asked when the guest's probe is free again."""
    with ProbeGuest(runtime / "probe.sock") as guest:
        guest.wait_until_up(deadline=_PATIENCE)
        said = str(guest.call("read_file", path=_LOG)["text"])
    count = SIZE // BLOCK
    assert "err= 0" in said, said
    issued = re.search(r"issued rwts: total=(\d+),(\d+)", said)
    assert issued is not None and (int(issued[1]), int(issued[2])) == (count, count), said
