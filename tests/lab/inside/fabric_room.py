"""A Target host and a Host in one lab, apart from each other: the Target has a network name space of its own."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from at_work import MIB, Said, nvlane
from lab_drives import wait

from nvlane.apply import process
from nvlane.verify.pattern import pattern

NQN = "nqn.2014-08.org.example:disks"
HOST_NQN = Path("/etc/nvme/hostnqn")
NVMET = Path("/sys/kernel/config/nvmet")
#: The Target's addresses: one a network.
FIRST, SECOND = "10.9.0.2", "10.9.1.2"
_NAME = "nvlane-target"


def target_files(directory: Path) -> list[Path]:
    """Files of the Target, each with content that its guest must find."""
    made = [directory / f"{number}.img" for number in range(4)]
    for number, file in enumerate(made):
        file.write_bytes(pattern(number + 1, MIB))
        os.truncate(file, 64 * MIB)
    return made


def fabrics_lane(name: str, **keys: object) -> str:
    """A lane's table; a file behind the kernel's Target has blocks of 4096 bytes."""
    values = {"name": name, "nqn": NQN, "block_size": 4096, "write_proof": True, **keys}
    return 'kind = "fabrics"\n' + "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


@contextlib.contextmanager
def fio_verifies(nsid: int) -> Iterator[None]:
    """fio writes to this namespace on the Host while the body runs, and reads back what it wrote after it."""
    device = _device(nsid)
    job = ["--direct=1", "--ioengine=libaio", "--iodepth=8", "--rw=randwrite", "--bs=4k", "--size=32M"]
    proof = ["--verify=crc32c", "--verify_fatal=1", "--do_verify=1"]
    argv = ["fio", f"--name=path{nsid}", f"--filename={device}", *job, *proof]
    counters = Path(f"/sys/block/{device.removeprefix('/dev/')}/stat")
    before = _writes(counters)
    with ThreadPoolExecutor(max_workers=1) as pool:
        ended = pool.submit(process.run, argv, timeout=240.0)
        wait("fio writes", lambda: _writes(counters) > before + 64 or ended.done(), 60.0)
        assert not ended.done()
        yield
        assert "err= 0" in ended.result().stdout
    assert _writes(counters) - before >= 32 * MIB // 4096


def namespace_writes(nsid: int) -> int:
    """How many writes of the Host to this namespace are complete."""
    return _writes(Path("/sys/block", Path(_device(nsid)).name, "stat"))


def _device(nsid: int) -> str:
    connections = nvlane("fabrics", "list", "--json").ok().json["connections"]
    return next(str(ns["device"]) for one in connections for ns in one["namespaces"] if ns["nsid"] == nsid)


def _writes(counters: Path) -> int:
    """Completed ones: the fifth field (Documentation/block/stat.rst)."""
    return int(counters.read_text().split()[4])


def host_nqn() -> str:
    return HOST_NQN.read_text().strip()


@contextlib.contextmanager
def networks() -> Iterator[None]:
    """Two networks between the Host (this name space) and the Target."""
    process.run(["ip", "netns", "add", _NAME])
    try:
        for number, address in enumerate((FIRST, SECOND)):
            here, there = f"host{number}", f"target{number}"
            process.run(["ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", _NAME])
            process.run(["ip", "address", "add", f"10.9.{number}.1/24", "dev", here])
            process.run(["ip", "link", "set", here, "up"])
            with at_target():
                process.run(["ip", "address", "add", f"{address}/24", "dev", there])
                process.run(["ip", "link", "set", there, "up"])
        yield
    finally:
        for number in range(2):
            process.run(["ip", "link", "delete", f"host{number}"], check=False)
        process.run(["ip", "netns", "delete", _NAME])


@contextlib.contextmanager
def at_target() -> Iterator[None]:
    """In the Target's network name space: nvmet listens in that of the process that opens a port."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{_NAME}", os.O_RDONLY)
    try:
        os.setns(other, os.CLONE_NEWNET)  # type: ignore[attr-defined]
        yield
    finally:
        os.setns(own, os.CLONE_NEWNET)  # type: ignore[attr-defined]
        os.close(own)
        os.close(other)


def export(*words: str | Path, allow: str = "", here: bool = False) -> Said:
    """Export as `disks`, over tcp unless the words say otherwise. `here`: where there is no network of the Target's."""
    with contextlib.nullcontext() if here else at_target():
        return nvlane("fabrics", "export", "disks", "--nqn", NQN, "--allow", allow or host_nqn(), *words)


def unexport(*, here: bool = False) -> Said:
    with contextlib.nullcontext() if here else at_target():
        return nvlane("fabrics", "unexport", "disks")


@contextlib.contextmanager
def exported(*words: str | Path, here: bool = False) -> Iterator[None]:
    export(*words, here=here).ok()
    try:
        yield
    finally:
        unexport(here=here).ok()
    assert not NVMET.exists() or not any(path for group in NVMET.iterdir() for path in group.iterdir())
