"""Targets without a machine in the lab: a drive goes to our driver and comes back, whatever happens in between."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from at_work import MIB, alive, nvlane, nvlane_alone, unchanged
from lab_drives import wait

pytestmark = pytest.mark.lab


def test_a_drive_under_our_driver() -> None:
    with unchanged():
        value = nvlane("target", "start", "t0", "--drive", "serial:LABSPARE", "--json").ok().json
        assert Path(value["sockets"]["vhost"]).is_socket()
        (bdev,) = nvlane("target", "rpc", "t0", "bdev_get_bdevs").ok().json
        (nvme,) = bdev["driver_specific"]["nvme"]
        assert nvme["ctrlr_data"]["serial_number"].strip() == "LABSPARE"
        assert bdev["num_blocks"] * bdev["block_size"] == 512 * MIB
        nvlane("target", "restart", "t0").ok()
        (again,) = nvlane("target", "rpc", "t0", "bdev_get_bdevs").ok().json
        assert again["name"] == bdev["name"]
        nvlane("target", "stop", "t0").ok()


def test_a_killed_target_gives_its_drive_back() -> None:
    with unchanged():
        pid = nvlane("target", "start", "t0", "--drive", "serial:LABSPARE", "--json").ok().json["pid"]
        os.kill(pid, signal.SIGKILL)
        wait("the target has ended", lambda: not alive(pid))
        assert nvlane("status", "t0", "--json").ok().json["state"] == "left"
        nvlane("restore").ok()


def test_a_drive_in_use_is_refused() -> None:
    with unchanged():
        said = nvlane("target", "start", "t0", "--drive", "serial:LABMOUNT")
        assert said.status == 3
        assert "drive-mount" in said.err


def test_nvlane_dies_while_it_starts_one() -> None:
    """Whatever moment it dies at, restore finds the process and gives the drive back."""
    with unchanged():
        for record in (4, 6, 8):
            died = nvlane_alone(
                "target", "start", "t0", "--drive", "serial:LABSPARE", env={"NVLANE_DIE_AFTER_RECORD": str(record)}
            )
            assert died.status == -signal.SIGKILL, str(died)
            nvlane("restore").ok()
