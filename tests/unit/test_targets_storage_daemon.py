"""qemu-storage-daemon as a target: what it says it can do, its command line, and the real program."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from qemu_running import started

from nvlane.facts.shape import Facts
from nvlane.facts.shape import StorageDaemon as DaemonFacts
from nvlane.model.errors import CommandFailed
from nvlane.model.pci import PciAddress
from nvlane.model.size import MIB
from nvlane.plan.step import Export, StartTarget
from nvlane.targets.storage_daemon import StorageDaemon
from nvlane.targets.table import ENGINES
from nvlane.wire.qmp import Qmp

DAEMON = shutil.which("qemu-storage-daemon") or ""
real = pytest.mark.skipif(not DAEMON, reason="qemu-storage-daemon is not installed")
ENGINE = StorageDaemon()
DESCRIPTORS = {"export": 10, "qmp": 11}


def step(directory: str = "/run/nvlane/m/t", **export: Any) -> StartTarget:
    source = export if export.keys() & {"path", "null", "address", "malloc"} else {"path": "/images/disk", **export}
    return StartTarget(
        engine="qemu-storage-daemon",
        name="m.lane0",
        binary=DAEMON or "/usr/bin/qemu-storage-daemon",
        directory=directory,
        export=Export(
            **{
                "node": "n",
                "socket": f"{directory}/vhost.sock",
                "frontend": "virtio-blk",
                "queues": 2,
                "block_size": 512,
                **source,
            }
        ),
    )


def options(arguments: tuple[str, ...], flag: str) -> list[dict[str, Any]]:
    return [json.loads(value) for name, value in pairwise(arguments) if name == flag]


def facts(**daemon: Any) -> Facts:
    return Facts(
        hostname="h",
        kernel="6.1",
        architecture="x86_64",
        boot_id="b",
        uid=0,
        cpus=frozenset({0}),
        memory_total=1,
        state_dir="/var/lib/nvlane",
        runtime_dir="/run/nvlane",
        storage_daemon=DaemonFacts(**{"path": "/usr/bin/qemu-storage-daemon", "version": "7.2", **daemon}),
    )


WHOLE: Mapping[str, Any] = {"exports": ("nbd", "vhost-user-blk"), "block_drivers": ("file", "null-co", "nvme")}


def test_it_is_in_the_table_under_its_own_name() -> None:
    assert ENGINES["qemu-storage-daemon"].name == "qemu-storage-daemon"
    assert all(name == engine.name for name, engine in ENGINES.items())


def test_what_it_can_serve() -> None:
    assert [ENGINE.problem(facts(**WHOLE), source)[0] for source in sorted(ENGINE.sources)] == ["", "", ""]
    assert "virtio-scsi" not in ENGINE.frontends
    reason, remedy = ENGINE.problem(facts(**WHOLE), "malloc")
    assert "memory" in reason
    assert "tmpfs" in remedy


@pytest.mark.parametrize(
    ("daemon", "source", "words"),
    [
        ({**WHOLE, "exports": ("nbd",)}, "file", "without the vhost-user-blk export"),
        ({**WHOLE, "block_drivers": ("file",)}, "drive", "without the block driver nvme"),
        ({**WHOLE, "block_drivers": ("file",)}, "null", "without the block driver null-co"),
        ({**WHOLE, "error": "it crashed"}, "file", "it crashed"),
    ],
)
def test_what_a_build_may_lack(daemon: Mapping[str, Any], source: str, words: str) -> None:
    reason, remedy = ENGINE.problem(facts(**daemon), source)
    assert words in reason
    assert remedy


def test_without_the_program() -> None:
    nothing = replace(facts(), storage_daemon=None)
    assert ENGINE.binary(nothing) == ""
    assert "not installed" in ENGINE.problem(nothing, "file")[0]
    assert ENGINE.binary(facts()) == "/usr/bin/qemu-storage-daemon"


@pytest.mark.parametrize(
    ("export", "drivers"),
    [
        ({"path": "/images/disk"}, ["file", "raw"]),
        ({"path": "/dev/sdb", "block_device": True}, ["host_device", "raw"]),
        ({"null": MIB}, ["null-co"]),
        ({"address": PciAddress.parse("05:00.0"), "namespace": 2}, ["nvme"]),
    ],
)
def test_the_block_graph(export: dict[str, Any], drivers: list[str]) -> None:
    arguments = ENGINE.argv(step(**export), DESCRIPTORS)
    nodes = options(arguments, "--blockdev")
    assert [node["driver"] for node in nodes] == drivers
    (served,) = options(arguments, "--export")
    assert served["node-name"] == nodes[-1]["node-name"]
    assert served["addr"] == {"type": "fd", "str": "10"}
    assert (served["num-queues"], served["logical-block-size"], served["writable"]) == (2, 512, True)


def test_the_drive_is_named_with_its_namespace() -> None:
    arguments = ENGINE.argv(step(address=PciAddress.parse("05:00.0"), namespace=2), DESCRIPTORS)
    (node,) = options(arguments, "--blockdev")
    assert (node["device"], node["namespace"]) == ("0000:05:00.0", 2)


def test_read_only_all_the_way_down() -> None:
    arguments = ENGINE.argv(step(read_only=True), DESCRIPTORS)
    assert all(node["read-only"] for node in options(arguments, "--blockdev"))
    assert options(arguments, "--export")[0]["writable"] is False


def test_without_descriptors_it_can_be_pasted() -> None:
    arguments = ENGINE.argv(step("/run/a,b"), {})
    assert "socket,id=qmp,path=/run/a,,b/qmp.sock,server=on,wait=off" in arguments
    assert options(arguments, "--export")[0]["addr"] == {"type": "unix", "path": "/run/a,b/vhost.sock"}


def image(path: Path, size: int = MIB) -> str:
    with path.open("wb") as file:
        file.truncate(size)
    return str(path)


@real
@pytest.mark.parametrize("kind", ["file", "null", "read-only"])
def test_it_serves(kind: str, tmp_path: Path) -> None:
    exports: dict[str, dict[str, Any]] = {
        "file": {"path": image(tmp_path / "disk,0.raw"), "block_size": 4096},
        "null": {"null": 8 * MIB},
        "read-only": {"path": image(tmp_path / "disk1.raw"), "read_only": True},
    }
    made = step(str(tmp_path / "t"), **exports[kind])
    with started(ENGINE, made), Qmp.connect(f"{made.directory}/qmp.sock") as monitor:
        (export,) = monitor.execute("query-block-exports")
        assert (export["type"], export["shutting-down"]) == ("vhost-user-blk", False)
    assert stat.S_IMODE((tmp_path / "t" / "target.log").stat().st_mode) == 0o600


@real
def test_its_threads_run_where_they_were_told(tmp_path: Path) -> None:
    cpu = min(os.sched_getaffinity(0))
    made = replace(step(str(tmp_path / "t"), null=MIB), cpus=frozenset({cpu}))
    with started(ENGINE, made) as pid:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        assert len(threads) >= 2
        assert all(os.sched_getaffinity(int(thread.name)) == {cpu} for thread in threads)


@real
def test_a_processor_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    made = replace(step(str(tmp_path / "t"), null=MIB), cpus=frozenset({8000}))
    with pytest.raises(Exception, match="processors 8000") as error, started(ENGINE, made):
        pass
    assert "online" in str(error.value)


@real
def test_its_last_words_are_told(tmp_path: Path) -> None:
    made = step(str(tmp_path / "t"), path=str(tmp_path / "nothing"))
    with pytest.raises(CommandFailed) as error, started(ENGINE, made):
        pass
    assert error.value.status == "exit status 1"
    assert "No such file or directory" in error.value.last_words
    assert "--export" in error.value.command
