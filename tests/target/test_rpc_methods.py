"""Every method, called by SPDK's own client: what it answers, what it changes, and its old names."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rpc_peer import Bare, Peer, Refused
from target_process import Target

BLOCKS = {"num_blocks": 2048, "block_size": 512}
UUID = "2b6601ba-eada-44fb-9a83-a20eb9eb9e90"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    with Bare(tmp_path, "--allow-path", str(tmp_path)) as running:
        yield running


@pytest.fixture
def peer(target: Target) -> Peer:
    return Peer(target)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 << 20)
    return path


def bdev(peer: Peer, name: str) -> dict[str, Any]:
    [found] = peer("bdev_get_bdevs", name=name)
    assert isinstance(found, dict)
    return found


def error(peer: Peer, method: str, **params: Any) -> tuple[int, str]:
    with pytest.raises(Refused) as refused:
        peer(method, params)
    return refused.value.code, refused.value.message


def test_malloc(peer: Peer) -> None:
    assert peer("bdev_malloc_create", name="M", uuid=UUID, **BLOCKS) == "M"
    assert peer("bdev_malloc_create", **BLOCKS) == "Malloc0"
    assert peer("bdev_malloc_create", **BLOCKS) == "Malloc1"
    assert (bdev(peer, "M")["uuid"], bdev(peer, UUID)["name"]) == (UUID, "M")
    assert error(peer, "bdev_malloc_create", name="other", uuid=UUID, **BLOCKS)[0] == -17
    assert peer("bdev_malloc_resize", name="M", new_size=4) is True
    assert bdev(peer, "M")["num_blocks"] == 8192
    assert peer("bdev_malloc_delete", name="M") is True
    assert error(peer, "bdev_malloc_delete", name="M") == (-19, "No such device")


def test_null(peer: Peer) -> None:
    assert peer("bdev_null_create", name="N", **BLOCKS) == "N"
    assert error(peer, "bdev_malloc_delete", name="N")[0] == -19, "another method made it"
    assert peer("bdev_null_resize", name="N", new_size=2) is True
    assert bdev(peer, "N")["num_blocks"] == 4096
    assert error(peer, "bdev_null_resize", name="N", new_size=1)[0] == -22
    assert peer("bdev_null_delete", name="N") is True


@pytest.mark.parametrize("kind", ["aio", "uring"])
def test_files(peer: Peer, image: Path, kind: str) -> None:
    assert peer(f"bdev_{kind}_create", name="F", filename=str(image), block_size=4096) == "F"
    assert bdev(peer, "F")["num_blocks"] == 2048
    assert bdev(peer, "F")["driver_specific"][kind]["filename"] == str(image)
    with image.open("r+b") as file:
        file.truncate(16 << 20)
    assert peer(f"bdev_{kind}_rescan", name="F") is True
    assert bdev(peer, "F")["num_blocks"] == 4096
    assert peer(f"bdev_{kind}_delete", name="F") is True


def test_stacked_bdevs_go_with_their_base(peer: Peer) -> None:
    peer("bdev_malloc_create", name="base", **BLOCKS)
    latencies = {f"{which}_{way}_latency": 10 for which in ("avg", "p99") for way in ("read", "write")}
    assert peer("bdev_delay_create", name="slow", base_bdev_name="base", **latencies) == "slow"
    assert peer("bdev_error_create", base_name="slow") is True
    assert bdev(peer, "base")["claimed"] is True
    assert peer("bdev_delay_update_latency", delay_bdev_name="slow", latency_type="p99_read", latency_us=50) is True
    assert bdev(peer, "slow")["driver_specific"]["delay"]["p99_read_latency"] == 50
    assert (
        error(peer, "bdev_delay_update_latency", delay_bdev_name="base", latency_type="p99_read", latency_us=1)[0]
        == -32600
    )
    for kind, fault in [("read", "failure"), ("all", "pending"), ("write", "nomem"), ("clear", "failure")]:
        assert peer("bdev_error_inject_error", name="EE_slow", io_type=kind, error_type=fault) is True
    assert peer("bdev_error_resume_pending", name="EE_slow") is True
    assert error(peer, "bdev_error_inject_error", name="base", io_type="read", error_type="failure")[0] == -19
    assert error(peer, "bdev_error_create", bogus=1) == (-32602, "spdk_json_decode_object failed")
    assert peer("bdev_malloc_delete", name="base") is True
    assert peer("bdev_get_bdevs") == []


def test_limits(peer: Peer) -> None:
    peer("bdev_null_create", name="N", **BLOCKS)
    assert peer("bdev_set_qos_limit", name="N", rw_ios_per_sec=1500, w_mbytes_per_sec=7) is True
    limits = bdev(peer, "N")["assigned_rate_limits"]
    assert limits == {"rw_ios_per_sec": 2000, "rw_mbytes_per_sec": 0, "r_mbytes_per_sec": 0, "w_mbytes_per_sec": 7}
    assert error(peer, "bdev_set_qos_limit", name="N") == (-22, "No rate limits specified")
    assert peer("bdev_set_qos_limit", name="N", rw_ios_per_sec=0, w_mbytes_per_sec=0) is True
    assert set(bdev(peer, "N")["assigned_rate_limits"].values()) == {0}


def test_blk_controllers(target: Target, peer: Peer) -> None:
    peer("bdev_null_create", name="N", **BLOCKS)
    assert (
        peer("vhost_create_blk_controller", ctrlr="vm0", dev_name="N", cpumask="[0]", unknown_is_passed_over=1) is True
    )
    assert target.socket("vm0").stat().st_mode & 0o7777 == 0o600
    assert peer("vhost_controller_set_coalescing", ctrlr="vm0", delay_base_us=20, iops_threshold=1000) is True
    [found] = peer("vhost_get_controllers", name="vm0")
    assert (found["delay_base_us"], found["iops_threshold"]) == (20, 1000)
    with socket.socket(socket.AF_UNIX) as front_end:
        front_end.connect(str(target.socket("vm0")))
    assert error(peer, "vhost_controller_set_coalescing", ctrlr="vm0", delay_base_us=1, iops_threshold=0)[0] == -32602
    assert error(peer, "vhost_create_blk_controller", ctrlr="x", dev_name="N", transport="vfio")[0] == -32602
    assert peer("vhost_delete_controller", ctrlr="vm0") is True
    assert not target.socket("vm0").exists()
    assert peer("virtio_blk_get_transports", name="vhost_user_blk") == [{"name": "vhost_user_blk"}]
    assert error(peer, "virtio_blk_get_transports", name="x")[0] == -19
    assert error(peer, "virtio_blk_create_transport", name="vhost_user_blk")[0] == -17


@pytest.mark.parametrize("name", ["", ".", "..", "../outside", "a/b", "x" * 200])
def test_a_controller_has_a_name_that_a_file_can_have(target: Target, peer: Peer, name: str) -> None:
    peer("bdev_null_create", name="N", **BLOCKS)
    assert error(peer, "vhost_create_blk_controller", ctrlr=name, dev_name="N")[0] == -32602
    assert peer("vhost_get_controllers") == []
    assert not (target.directory.parent / "outside").exists()


def test_scsi_controllers(target: Target, peer: Peer) -> None:
    peer("bdev_null_create", name="N", **BLOCKS)
    assert peer("vhost_create_scsi_controller", ctrlr="s0", delay=True) is True
    assert peer("vhost_scsi_controller_add_target", ctrlr="s0", scsi_target_num=-1, bdev_name="N") == 0
    assert peer("vhost_start_scsi_controller", ctrlr="s0") is True
    with socket.socket(socket.AF_UNIX) as front_end:
        front_end.connect(str(target.socket("s0")))
    assert peer("vhost_scsi_controller_remove_target", ctrlr="s0", scsi_target_num=0) is True
    assert error(peer, "vhost_scsi_controller_remove_target", ctrlr="s0", scsi_target_num=0)[0] == -32602
    assert error(peer, "vhost_scsi_controller_remove_target", ctrlr="s0", scsi_target_num=8)[0] == -32602
    assert error(peer, "vhost_scsi_controller_add_target", ctrlr="s0", scsi_target_num=-2, bdev_name="N")[0] == -32602
    assert peer("vhost_delete_controller", ctrlr="s0") is True


def test_statistics(peer: Peer) -> None:
    peer("bdev_null_create", name="N", **BLOCKS)
    [counters] = peer("bdev_get_iostat", names=["N"])["bdevs"]
    assert counters["num_read_ops"] == 0
    assert peer("bdev_get_iostat", names=["N"], per_channel=True)["channels"] == []
    assert error(peer, "bdev_get_iostat", per_channel=True)[0] == -22
    assert error(peer, "bdev_get_iostat", names=["x"])[0] == -19
    assert peer("bdev_get_iostat", names=[])["bdevs"] == []
    assert peer("bdev_reset_iostat", name="N", mode="all") is True
    assert peer("bdev_get_iostat", reset_mode="all")["bdevs"][0]["name"] == "N"
    [reactor] = peer("framework_get_reactors")["reactors"]
    [thread] = peer("thread_get_stats")["threads"]
    assert (reactor["lcore"], reactor["lw_threads"][0]["id"]) == (0, thread["id"])
    assert reactor["tid"] in map(int, os.listdir(f"/proc/{peer('nvlane_get_status')['pid']}/task"))  # noqa: PTH208


def test_the_log(target: Target, peer: Peer) -> None:
    assert peer("log_set_print_level", level="DEBUG") is True
    assert peer("log_get_print_level") == "DEBUG"
    assert peer("log_set_flag", flag="rpc") is True
    assert peer("log_get_flags")["rpc"] is True
    assert peer("log_clear_flag", flag="all") is True
    error(peer, "bdev_get_bdevs", name="nowhere to be found")
    assert "nowhere to be found" in target.last_words()
    assert error(peer, "log_set_flag", flag="x") == (-32602, "invalid log flag")


def test_nvme_without_a_drive(peer: Peer) -> None:
    assert peer("bdev_nvme_set_options", timeout_us=1_000_000, action_on_timeout="abort") is True
    assert peer("bdev_nvme_set_hotplug", enable=False, period_us=0) is True
    assert peer("bdev_nvme_get_controllers") == []
    assert error(peer, "bdev_nvme_get_controllers", name="x") == (-22, "Controller x does not exist")
    for place in ("0000:ff:1f.7", "no address"):
        assert error(peer, "bdev_nvme_attach_controller", name="D", trtype="PCIe", traddr=place)[0] == -19
    assert error(peer, "bdev_nvme_detach_controller", name="D")[0] == -19
    assert error(peer, "bdev_nvme_reset_controller", name="D")[0] == -19


def test_settings_of_spdk_are_decoded_and_change_nothing(tmp_path: Path) -> None:
    with Bare(tmp_path, "--wait-for-rpc") as target:
        peer = Peer(target)
        assert peer("bdev_set_options", bdev_io_pool_size=65535, bdev_auto_examine=True) is True
        assert peer("iobuf_set_options", small_pool_count=8192, large_pool_count=1024) is True
        assert peer("sock_impl_set_options", impl_name="posix", recv_buf_size=2097152) is True
        assert error(peer, "accel_set_options", bogus=1)[0] == -32603
        assert error(peer, "bdev_get_bdevs")[0] == -1
        assert peer("framework_start_init") is True
        assert error(peer, "bdev_set_options")[0] == -1
        assert peer("framework_set_scheduler", name="static") is True
        assert peer("bdev_wait_for_examine") is True


def test_waiting_for_a_bdev(target: Target, peer: Peer) -> None:
    other = Peer(target)
    other.client.send("bdev_get_bdevs", {"name": "late", "timeout": 5000})
    peer("bdev_null_create", name="late", **BLOCKS)
    assert other.client.recv()["result"][0]["name"] == "late"


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_the_end(target: Target, peer: Peer, signal: str) -> None:
    assert error(peer, "spdk_kill_instance", sig_name="SIGBUS") == (-32602, "Invalid parameters")
    peer("bdev_malloc_create", name="M", **BLOCKS)
    peer("vhost_create_blk_controller", ctrlr="vm0", dev_name="M")
    assert peer("spdk_kill_instance", sig_name=signal) is True
    assert target.process.wait(10) == 0
    assert not target.rpc_socket.exists()
    assert not target.socket("vm0").exists()


def test_old_names_with_their_old_parameters(peer: Peer, image: Path) -> None:
    old = [
        ("construct_malloc_bdev", {"name": "M", **BLOCKS}, "M"),
        ("construct_null_bdev", {"name": "N", **BLOCKS}, "N"),
        ("construct_aio_bdev", {"name": "A", "fname": str(image), "block_size": 512}, "A"),
        ("construct_error_bdev", {"base_name": "N"}, True),
        ("construct_vhost_scsi_controller", {"ctrlr": "s0", "cpumask": "0x1"}, True),
        ("add_vhost_scsi_lun", {"ctrlr": "s0", "scsi_dev_num": 2, "lun_name": "A"}, 2),
        ("add_vhost_scsi_lun", {"ctrlr": "s0", "scsi_target_num": 3, "bdev_name": "M"}, 3),
        ("remove_vhost_scsi_dev", {"ctrlr": "s0", "scsi_dev_num": 3}, True),
        ("remove_vhost_scsi_target", {"ctrlr": "s0", "scsi_target_num": 2}, True),
        ("construct_vhost_blk_controller", {"ctrlr": "b0", "dev_name": "M", "readonly": True}, True),
        ("set_vhost_controller_coalescing", {"ctrlr": "b0", "delay_base_us": 1, "iops_threshold": 1}, True),
        ("remove_vhost_controller", {"ctrlr": "b0"}, True),
        ("delete_error_bdev", {"name": "EE_N"}, True),
        ("set_bdev_qos_limit", {"name": "M", "rw_ios_per_sec": 1000}, True),
    ]
    for method, params, answer in old:
        assert peer(method, params) == answer, method
    assert [found["name"] for found in peer("get_bdevs")] == ["M", "N", "A"]
    assert peer("get_bdevs_iostat", name="M")["bdevs"][0]["name"] == "M"
    assert [found["ctrlr"] for found in peer("get_vhost_controllers")] == ["s0"]
    assert error(peer, "construct_nvme_bdev", name="D", trtype="pcie", traddr="0000:ff:1f.7")[0] == -19
    assert error(peer, "delete_nvme_controller", name="D")[0] == -19
    assert set(peer("get_rpc_methods")) < set(peer("rpc_get_methods", include_aliases=True))
    assert peer("kill_instance", sig_name="SIGTERM") is True


def test_spdks_command_line(target: Target, image: Path) -> None:
    def rpc(*words: str) -> str:
        command = [sys.executable, "-m", "spdk.spdk_rpc", "-s", str(target.rpc_socket), *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else f"{done.stdout}{done.stderr}"

    assert rpc("bdev_malloc_create", "4", "512", "-b", "M").strip() == "M"
    assert rpc("bdev_aio_create", str(image), "A", "4096").strip() == "A"
    assert rpc("vhost_create_blk_controller", "vm0", "M", "--cpumask", "0x1") == ""
    assert rpc("vhost_create_scsi_controller", "s0") == ""
    assert rpc("vhost_scsi_controller_add_target", "s0", "0", "A").strip() == "0"
    assert {found["name"] for found in json.loads(rpc("bdev_get_bdevs"))} == {"M", "A"}
    assert json.loads(rpc("bdev_get_iostat", "--names", "M"))["bdevs"][0]["name"] == "M"
    assert "No such device" in rpc("bdev_get_bdevs", "-b", "x")
    config = json.loads(rpc("save_config"))
    assert [part["subsystem"] for part in config["subsystems"]] == ["bdev", "scsi", "vhost_blk", "vhost_scsi"]
    assert json.loads(rpc("save_subsystem_config", "-n", "vhost_blk"))["config"][0]["params"]["ctrlr"] == "vm0"


def test_every_method_is_documented(peer: Peer) -> None:
    page = (Path(__file__).parents[2] / "docs" / "target-rpc.md").read_text()
    table = page.partition("## On the wire")[0]
    assert set(re.findall(r"`(\w+_\w+)`", table)) >= set(peer("rpc_get_methods"))
