"""`nvlane target` with the real program, each verb from a process of its own; guests are for the lab's tests."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from program import Program

from nvlane.targets.program import packaged_target

pytestmark = pytest.mark.skipif(
    not Path(packaged_target()).exists(), reason="nvlane-target is not built: tools/prepare builds it"
)


@pytest.fixture
def run(nvlane: Program) -> Iterator[Program]:
    """A program, and no target left behind whatever the test does."""
    yield nvlane
    if nvlane.state.exists():
        for path in list((nvlane.state / "runs").iterdir()):
            done = nvlane("down", path.name)
            assert done.returncode == 0, done
    assert not nvlane.state.exists()
    assert not nvlane.runtime.exists()


def said(done: Any, status: int = 0) -> Any:
    """What a verb printed as JSON."""
    assert done.returncode == status, f"{done.args}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def start(run: Program, *words: str) -> dict[str, Any]:
    value: dict[str, Any] = said(run("target", "start", "t0", *words, "--json"))
    return value


def status(run: Program) -> dict[str, Any]:
    value: dict[str, Any] = said(run("target", "status", "t0", "--json"))
    return value


def test_a_life(run: Program) -> None:
    value = start(run, "--malloc", "8MiB", "--block-size", "4096")
    assert (value["engine"], value["machine"], value["running"]) == ("nvlane", None, True)
    assert value["serves"] == "malloc 8MiB as virtio-blk"
    for path in value["sockets"].values():
        assert Path(path).is_socket()
        assert Path(path).stat().st_mode & 0o777 == 0o600
    listed = said(run("target", "status", "--json"))
    assert [seen["target"] for seen in listed] == ["t0"]
    view = status(run)
    (bdev,) = view["bdevs"]
    assert (bdev["num_blocks"], bdev["block_size"]) == (2048, 4096)
    (controller,) = view["controllers"]
    assert controller["backend_specific"]["block"]["bdev"] == bdev["name"]
    assert view["version"].startswith("nvlane-target")
    shown = run("target", "status", "t0")
    assert f"{bdev['name']}: Malloc disk, 8MiB, 4096-byte blocks" in shown.stdout
    stopped = run("target", "stop", "t0")
    assert stopped.returncode == 0, stopped
    assert "the host is as it was" in stopped.stderr


def test_rpc_takes_any_method(run: Program) -> None:
    value = start(run)
    assert said(run("target", "rpc", "t0", "bdev_get_bdevs")) == []
    name = said(run("target", "rpc", "t0", "bdev_malloc_create", "name=m0", "num_blocks=64", "block_size=512"))
    assert name == "m0"
    again = '{"name": "n0", "num_blocks": 64, "block_size": 4096}'
    assert said(run("target", "rpc", "t0", "construct_null_bdev", again)) == "n0"
    # By the socket's own path, too.
    bdevs = said(run("target", "rpc", value["sockets"]["rpc"], "get_bdevs", "name=n0"))
    assert bdevs[0]["block_size"] == 4096


def test_rpc_errors_are_the_targets_own_words(run: Program) -> None:
    start(run)
    missing = run("target", "rpc", "t0", "bdev_get_bdevs", "name=nope", "--json")
    assert "No such device" in said(missing, 1)["error"]["message"]
    unknown = run("target", "rpc", "t0", "bdev_get_bdev")
    assert unknown.returncode == 1
    assert "did you mean 'bdev_get_bdevs'?" in unknown.stderr
    for words in (("x",), ("=3",), ("a=1", "a=2"), ("{a",)):
        done = run("target", "rpc", "t0", "bdev_get_bdevs", *words)
        assert done.returncode == 2, done


def test_a_target_that_was_killed_starts_with_what_it_saved(run: Program) -> None:
    start(run, "--null", "1GiB", "--frontend", "virtio-scsi")
    said(run("target", "rpc", "t0", "bdev_malloc_create", "name=more", "num_blocks=64", "block_size=512"))
    before = status(run)
    os.kill(before["pid"], signal.SIGKILL)
    ended = said(run("target", "status", "--json"))
    assert (ended[0]["running"], ended[0]["pid"]) == (False, None)
    refused = run("target", "rpc", "t0", "bdev_get_bdevs")
    assert refused.returncode == 1
    assert "nvlane target start t0" in refused.stderr
    assert run("target", "start", "t0", "--null", "2GiB").returncode == 2
    said(run("target", "start", "t0", "--json"))
    after = status(run)
    assert after["pid"] != before["pid"]
    assert [bdev["name"] for bdev in after["bdevs"]] == [bdev["name"] for bdev in before["bdevs"]]
    assert after["controllers"] == before["controllers"]


def test_restart_keeps_the_sockets_and_the_state(run: Program) -> None:
    value = start(run, "--malloc", "4MiB")
    with socket.socket(socket.AF_UNIX) as guest:
        again = said(run("target", "restart", "t0", "--json"))
        assert again["pid"] != value["pid"]
        assert again["sockets"] == value["sockets"]
        guest.connect(value["sockets"]["vhost"])
    assert [bdev["num_blocks"] for bdev in status(run)["bdevs"]] == [8192]
    twice = run("target", "start", "t0")
    assert twice.returncode == 1
    assert "runs already" in twice.stderr


def test_a_file_that_is_made(run: Program) -> None:
    path = run.directory / "disk.raw"
    start(run, "--file", str(path), "--size", "2MiB")
    assert path.stat().st_size == 2 << 20
    assert status(run)["bdevs"][0]["num_blocks"] == 4096
    assert run("target", "stop", "t0").returncode == 0
    assert not path.exists(), "nothing was written to it"


def test_top(run: Program) -> None:
    start(run, "--null", "1GiB")
    looks = run("target", "top", "t0", "--json", "--interval", "0.1", "--count", "2")
    assert looks.returncode == 0, looks
    for line in looks.stdout.splitlines():
        look = json.loads(line)
        assert [bdev["read_ops"] for bdev in look["bdevs"]] == [0.0]
        assert look["reactors"][0]["busy"] < 1
    assert len(looks.stdout.splitlines()) == 2
    words = run("target", "top", "t0", "--interval", "0.1").stdout
    assert words.startswith("t0: 1 controllers, 0 guests; reactors busy: core ")


def test_what_cannot_be_had(run: Program) -> None:
    both = run("target", "start", "t0", "--malloc", "1MiB", "--null", "1MiB")
    assert both.returncode == 2
    assert "a lane serves one thing" in both.stderr
    assert run("target", "start", "a/b").returncode == 2
    assert run("target", "start", "t0", "--malloc", "lots").returncode == 2
    cores = run("target", "start", "t0", "--malloc", "1MiB", "--cores", "4000")
    assert cores.returncode == 3
    assert "no-such-cores" in cores.stderr
    assert run("target", "status", "t0").returncode == 1
    assert run("target", "stop", "t0").returncode == 1
    dry = run("target", "start", "t0", "--malloc", "1MiB", "--dry-run")
    assert dry.returncode == 0
    assert "start the nvlane target t0" in dry.stdout
    assert "# then: bdev_malloc_create" in dry.stdout


def test_a_start_that_fails_is_undone(run: Program) -> None:
    config = run.directory / "config.json"
    config.write_text(
        '{"subsystems": [{"subsystem": "bdev", "config": [{"method": "bdev_null_create", "params": {}}]}]}'
    )
    done = run("target", "start", "t0", "--config", str(config))
    assert done.returncode == 1, done
    assert not run.state.exists()


def test_a_run_with_that_name(run: Program) -> None:
    start(run)
    twice = run("target", "start", "t0", "--malloc", "1MiB")
    assert twice.returncode == 1
    assert "runs already" in twice.stderr
    shown = said(run("status", "--json"))
    assert [(seen["run"], seen["state"]) for seen in shown] == [("t0", "up")]
    attached = run("verify", "t0")
    assert attached.returncode == 1
    assert "is a target without a machine" in attached.stderr
