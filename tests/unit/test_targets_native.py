"""nvlane-target as an engine: its command line, what it is told, and what its Python module knows."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from nvlane.apply.linux import LinuxHost
from nvlane.facts.target import read_target
from nvlane.model.errors import SpecError
from nvlane.model.pci import PciAddress
from nvlane.model.size import MIB
from nvlane.plan.step import Export, StartTarget
from nvlane.targets.native import NativeTarget, configuration
from nvlane.targets.native_module import check_config, method_names
from nvlane.targets.program import packaged_target

ENGINE = NativeTarget()
built = pytest.mark.skipif(not Path(packaged_target()).exists(), reason="nvlane-target is not built")


def export(**source: Any) -> Export:
    base: dict[str, Any] = {"node": "n", "socket": "/run/x/vhost.sock", "frontend": "virtio-blk", "queues": 1}
    return Export(**{**base, "block_size": 512, **source})


def step(**fields: Any) -> StartTarget:
    base: dict[str, Any] = {"engine": "nvlane", "name": "m.l", "binary": "/b", "directory": "/run/x"}
    return StartTarget(**{**base, "export": export(null=MIB), **fields})


@pytest.mark.parametrize(
    ("source", "methods", "bdev"),
    [
        ({"null": MIB}, ["bdev_null_create", "vhost_create_blk_controller"], "disk0"),
        ({"path": "/d"}, ["bdev_aio_create", "vhost_create_blk_controller"], "disk0"),
        (
            {"malloc": MIB, "frontend": "virtio-scsi"},
            ["bdev_malloc_create", "vhost_create_scsi_controller", "vhost_scsi_controller_add_target"],
            "disk0",
        ),
        (
            {"address": PciAddress.parse("05:00.0"), "namespace": 2},
            ["bdev_nvme_attach_controller", "vhost_create_blk_controller"],
            "drive0n2",
        ),
    ],
)
def test_what_it_is_told(source: dict[str, Any], methods: list[str], bdev: str) -> None:
    calls = list(configuration(export(**source)))
    assert [method for method, _ in calls] == methods
    last = calls[-1][1]
    assert last.get("dev_name", last.get("bdev_name")) == bdev
    assert last["ctrlr"] == "vhost.sock"


def test_sockets_are_handed_over_and_files_are_named() -> None:
    words = ENGINE.argv(step(cores=frozenset({1, 3}), opens=("/d",), sandbox=False), {"rpc": 10, "vhost": 11})
    line = " ".join(words)
    for part in ("-m 0xa", "--rpc-fd 10", "--vhost-fd vhost.sock=11", "--allow-path /d", "--no-confine"):
        assert part in line
    assert "-r " not in line
    launch = ENGINE.launch(step())
    assert set(launch.sockets) == {"rpc", "vhost"}
    assert "/run/x/state.json" in launch.files


def test_an_empty_one_has_no_disk_socket() -> None:
    assert set(ENGINE.launch(step(export=None)).sockets) == {"rpc"}
    assert ENGINE.calls(step(export=None)) == ()
    assert "--vhost-fd" not in ENGINE.argv(step(export=None), {"rpc": 10})


@built
def test_its_program_says_its_version() -> None:
    found = read_target(LinuxHost(), packaged_target())
    assert (found.version, found.error) == ("0.1.0", "")


def test_a_program_that_does_not_run(tmp_path: Path) -> None:
    program = tmp_path / "nvlane-target"
    program.write_text("#!/bin/sh\necho 'GLIBC_9.9 not found' >&2\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert "GLIBC_9.9 not found" in read_target(LinuxHost(), str(program)).error


def test_the_module_knows_the_methods() -> None:
    pytest.importorskip("nvlane._native")
    names = method_names()
    told = {method for source in ({"null": MIB}, {"path": "/d"}) for method, _ in configuration(export(**source))}
    assert told < set(names)
    assert {"construct_malloc_bdev", "get_vhost_controllers", "rpc_get_methods"} < set(names)


def test_a_configuration_is_checked_without_a_target() -> None:
    pytest.importorskip("nvlane._native")
    good = {"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_null_create", "params": {"name": "n"}}]}]}
    check_config("good.json", json.dumps(good))
    bad = '{"subsystems": [\n {"subsystem": "bdev", "config": [\n  {"method": "bdev_nul_create"}\n]}]}'
    with pytest.raises(SpecError, match="line 3: there is no method bdev_nul_create") as error:
        check_config("bad.json", bad)
    assert error.value.source == "bad.json"
    with pytest.raises(SpecError, match="line 1"):
        check_config("torn.json", '{"subsystems": [')
