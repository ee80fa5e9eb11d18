"""The configuration outlives the program: saved before the answer, whole whatever happens, made again at the start."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rpc_peer import Bare, Peer, Refused
from spdk.rpc import config
from spdk.rpc.client import JSONRPCException
from target_process import Target, program

from nvlane.wire.lines import PeerClosed


def build(peer: Peer, image: Path) -> None:
    """Something of everything."""
    peer("bdev_malloc_create", name="M", num_blocks=2048, block_size=512)
    peer("bdev_null_create", name="N", num_blocks=4096, block_size=4096)
    peer("bdev_aio_create", name="A", filename=str(image), block_size=512, readonly=True)
    peer("bdev_uring_create", name="U", filename=str(image.with_name("other.img")))
    latencies = {f"{which}_{way}_latency": 10 for which in ("avg", "p99") for way in ("read", "write")}
    peer("bdev_delay_create", name="D", base_bdev_name="M", **latencies)
    peer("bdev_delay_update_latency", delay_bdev_name="D", latency_type="p99_write", latency_us=99)
    peer("bdev_error_create", base_name="N")
    peer("bdev_null_resize", name="N", new_size=32)
    peer("bdev_set_qos_limit", name="A", rw_ios_per_sec=20000, r_mbytes_per_sec=5)
    peer("vhost_create_blk_controller", ctrlr="b0", dev_name="D", cpumask="0x1")
    peer("vhost_create_blk_controller", ctrlr="b1", dev_name="A", readonly=True, packed_ring=False)
    peer("vhost_controller_set_coalescing", ctrlr="b1", delay_base_us=10, iops_threshold=1234)
    peer("vhost_create_scsi_controller", ctrlr="s0")
    peer("vhost_scsi_controller_add_target", ctrlr="s0", scsi_target_num=5, bdev_name="U")
    peer("vhost_create_scsi_controller", ctrlr="s1", delay=True)
    peer("bdev_nvme_set_options", timeout_us=5_000_000)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    for name in ("disk.img", "other.img"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(4 << 20)
    return tmp_path / "disk.img"


def everything(peer: Peer) -> tuple[Any, ...]:
    bdevs = [{k: v for k, v in found.items() if k != "driver_specific"} for found in peer("bdev_get_bdevs")]
    return peer.saved(), bdevs, peer("vhost_get_controllers")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_restart_makes_everything_again(tmp_path: Path, image: Path, end: str) -> None:
    with Target(tmp_path) as target:
        peer = Peer(target)
        build(peer, image)
        before = everything(peer)
        state = (tmp_path / "state.json").stat()
        assert state.st_mode & 0o777 == 0o600
        getattr(target, end)()
        target.start()
        assert everything(Peer(target)) == before
        # The sockets are there again, and one that waits for its start is not served yet.
        for name in ("b0", "b1", "s0"):
            with socket.socket(socket.AF_UNIX) as front_end:
                front_end.connect(str(target.socket(name)))


def test_spdks_client_loads_what_it_saved(tmp_path: Path, image: Path) -> None:
    (tmp_path / "one").mkdir()
    with Bare(tmp_path / "one", "--allow-path", str(tmp_path)) as target:
        peer = Peer(target)
        build(peer, image)
        text, bdevs, controllers = everything(peer)
    (tmp_path / "two").mkdir()
    with Bare(tmp_path / "two", "--wait-for-rpc", "--allow-path", str(tmp_path)) as target:
        peer = Peer(target)
        config.load_config(peer.client, io.StringIO(text))
        again, same_bdevs, same_controllers = everything(peer)
    assert (again, same_bdevs) == (text, bdevs)
    assert json.dumps(same_controllers).replace("/two/", "/one/") == json.dumps(controllers)


def test_a_configuration_to_begin_with(tmp_path: Path, image: Path) -> None:
    with Bare(tmp_path, "--allow-path", str(tmp_path)) as target:
        peer = Peer(target)
        build(peer, image)
        before = everything(peer)
    (tmp_path / "c.json").write_text(before[0])
    # Its files may be opened, without any option.
    with Bare(tmp_path, "-c", "c.json") as target:
        assert everything(Peer(target)) == before


def test_a_configuration_that_spdk_saved_loads(tmp_path: Path) -> None:
    settings = [
        {"method": "bdev_set_options", "params": {"bdev_io_pool_size": 65535, "bdev_auto_examine": True}},
        {"method": "bdev_nvme_set_options", "params": {"action_on_timeout": "none", "timeout_us": 0}},
        {"method": "bdev_nvme_set_hotplug", "params": {"period_us": 100000, "enable": False}},
        {"method": "bdev_wait_for_examine"},
    ]
    disk = {"name": "M", "num_blocks": 8, "block_size": 512, "dif_type": 0, "md_size": 0, "numa_id": -1}
    subsystems = [
        {"subsystem": "scheduler", "config": [{"method": "framework_set_scheduler", "params": {"name": "static"}}]},
        {"subsystem": "vmd", "config": []},
        {"subsystem": "bdev", "config": [[{"method": "bdev_malloc_create", "params": disk}], *settings]},
        {"subsystem": "scsi", "config": None},
        {"subsystem": "vhost_blk", "config": []},
    ]
    (tmp_path / "c.json").write_text(json.dumps({"subsystems": subsystems}))
    with Bare(tmp_path, "-c", "c.json") as target:
        assert [found["name"] for found in Peer(target)("bdev_get_bdevs")] == ["M"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["EOF", "line 1"]),
        ('{"subsystems": [\n', ["line 2"]),
        ('{"subsystems": [{"subsystem": "bdev", "config": [\n{"method": "bdev_bogus"}]}]}', ["line 2", "bdev_bogus"]),
        (
            '{"subsystems": [{"subsystem": "bdev", "config": [\n\n{"method": "bdev_null_create","params": {"x":1}}]}]}',
            ["line 3", "bdev_null_create", "unknown field `x`"],
        ),
    ],
)
@pytest.mark.parametrize("option", ["-c", "--state"])
def test_a_broken_file_is_refused_with_the_place(tmp_path: Path, option: str, text: str, words: list[str]) -> None:
    (tmp_path / "f.json").write_text(text)
    ended = refused(tmp_path, option, "f.json")
    assert all(word in ended for word in ["f.json", *words]), ended
    assert (tmp_path / "f.json").read_text() == text


def refused(directory: Path, *options: str) -> str:
    words = [str(program()), "-S", str(directory), "-r", str(directory / "rpc.sock"), *options]
    ended = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1, ended
    return ended.stderr


def test_a_disk_that_is_missing_stops_a_given_configuration_but_no_saved_one(tmp_path: Path, image: Path) -> None:
    with Target(tmp_path) as target:
        build(Peer(target), image)
        target.stop()
        state = (tmp_path / "state.json").read_text()
        image.unlink()
        (tmp_path / "c.json").write_text(state)
        assert "disk.img" in refused(tmp_path, "-c", "c.json")
        target.start()
        peer = Peer(target)
        missing = [(lost["method"], lost["params"].get("ctrlr")) for lost in peer("nvlane_get_status")["missing"]]
        assert ("bdev_aio_create", None) in missing
        assert ("vhost_create_blk_controller", "b1") in missing
        assert {found["name"] for found in peer("bdev_get_bdevs")} == {"M", "N", "U", "D", "EE_N"}
        # Another change does not lose what is missing; with the disk back, all is as it was.
        peer("bdev_null_create", name="later", num_blocks=8, block_size=512)
        peer("bdev_null_delete", name="later")
        target.kill()
        with image.open("wb") as file:
            file.truncate(4 << 20)
        target.start()
        assert Peer(target)("nvlane_get_status")["missing"] == []
        assert sorted((tmp_path / "state.json").read_text()) == sorted(state)


def test_what_is_missing_can_be_given_up(tmp_path: Path, image: Path) -> None:
    with Target(tmp_path) as target:
        peer = Peer(target)
        peer("bdev_aio_create", name="A", filename=str(image))
        peer("vhost_create_blk_controller", ctrlr="b0", dev_name="A")
        target.stop()
        image.unlink()
        target.start()
        peer = Peer(target)
        assert peer("vhost_delete_controller", ctrlr="b0") is True
        assert peer("bdev_aio_delete", name="A") is True
        assert peer("nvlane_get_status")["missing"] == []
        assert "disk.img" not in (tmp_path / "state.json").read_text()


def test_a_kill_at_any_moment_leaves_a_whole_file_with_all_that_was_answered(tmp_path: Path) -> None:
    chance = random.Random(3)
    answered: set[str] = set()
    with Target(tmp_path) as target:
        for life in range(12):
            names = iter(f"life{life}-{number}" for number in range(100_000))
            killer = threading.Timer(chance.uniform(0.02, 0.25), os.kill, (target.process.pid, signal.SIGKILL))
            killer.start()
            with contextlib.suppress(JSONRPCException, OSError, PeerClosed):
                peer = Peer(target)
                for name in names:
                    peer("bdev_null_create", name=name, num_blocks=8, block_size=512)
                    answered.add(name)
            killer.join()
            target.process.wait(10)
            json.loads((tmp_path / "state.json").read_text())
            target.start()
            peer = Peer(target)
            present = {found["name"] for found in peer("bdev_get_bdevs")}
            assert answered <= present
            for name in present:
                peer("bdev_null_delete", name=name)
            answered.clear()


def test_a_state_that_cannot_be_written_is_an_error_and_no_lie(tmp_path: Path) -> None:
    assert "cannot be written" in refused(tmp_path, "--state", str(tmp_path / "nowhere" / "state.json"))
    keep = tmp_path / "keep"
    keep.mkdir()
    with Bare(tmp_path, "--state", str(keep / "state.json"), "--no-confine") as target:
        keep.rename(tmp_path / "moved")
        with pytest.raises(Refused) as told:
            Peer(target)("bdev_null_create", name="N", num_blocks=8, block_size=512)
        assert told.value.code == -2
        assert "would not survive a restart" in told.value.data
        (tmp_path / "moved").rename(keep)
        assert Peer(target)("bdev_null_delete", name="N") is True


def test_it_answers_in_a_fifth_of_a_second(tmp_path: Path) -> None:
    def start() -> float:
        begun = time.monotonic()
        with Bare(tmp_path, "-m", "0x3"):
            return time.monotonic() - begun

    # The best of three: other tests run beside this one.
    assert min(start() for _ in range(3)) < 0.2
