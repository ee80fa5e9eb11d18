"""The SCSI disk before judges: sg3_utils and libiscsi's test suite in a Linux guest, and targets that come and go."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from judges import judges
from machine_room import MIB, SIZE, Room, room
from target_process import program

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(program() is None, reason="nvlane-target has not been built (tools/prepare)"),
]

KIND = "scsi-split"
TOOLS = "/nvlane/tools/usr/bin"
BLOCKS = SIZE // 512


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with room(tmp_path_factory.mktemp("scsi"), (KIND,), tools=judges()) as made:
        yield made


def tool(machine: Room, name: str, *arguments: str, check: bool = True, deadline: float = 60.0) -> str:
    """What a program of the judges prints about the disk."""
    node = machine.guest.block(KIND)
    environment = ("env", "LD_LIBRARY_PATH=/nvlane/tools/usr/lib/x86_64-linux-gnu")
    words = [word.replace("NODE", node) for word in arguments]
    return machine.guest.run(*environment, f"{TOOLS}/{name}", *words, check=check, deadline=deadline)


def test_who_it_is(machine: Room) -> None:
    bdev = machine.target.call("bdev_get_bdevs", name=f"{KIND}.0")[0]
    digits = bdev["uuid"].replace("-", "")
    inquiry = tool(machine, "sg_inq", "NODE")
    assert "Vendor identification: NVLANE" in inquiry
    assert "SPC-4" in inquiry and "CmdQue=1" in inquiry
    assert digits in tool(machine, "sg_vpd", "--page=sn", "NODE")
    for page in ("sv", "sn", "di", "ei", "mpp", "bl", "bdc", "lbpv"):
        tool(machine, "sg_vpd", f"--page={page}", "NODE")
    identification = tool(machine, "sg_vpd", "--page=di", "NODE")
    assert bdev["uuid"] in identification and "NAA" in identification
    assert "Provisioning type: thin provisioned" in tool(machine, "sg_vpd", "--page=lbpv", "NODE")


def test_what_it_says_of_itself(machine: Room) -> None:
    capacity = tool(machine, "sg_readcap", "--16", "NODE")
    assert f"Last LBA={BLOCKS - 1}" in capacity and "lbpme=1" in capacity
    assert f"Last LBA={BLOCKS - 1}" in tool(machine, "sg_readcap", "NODE")
    modes = tool(machine, "sg_modes", "--all", "NODE")
    assert all(name in modes for name in ("Caching", "Control", "Informational exceptions"))
    tool(machine, "sg_modes", "--six", "--all", "NODE")
    assert "0000000000000000" in tool(machine, "sg_luns", "NODE")
    codes = tool(machine, "sg_opcodes", "NODE")
    assert all(name in codes for name in ("Unmap", "Write same(16)", "Synchronize cache(10)", "Read capacity(16)"))
    tool(machine, "sg_opcodes", "--rctd", "NODE")
    assert "Logical unit reset" in tool(machine, "sg_opcodes", "--tmf", "NODE")
    for name, *arguments in (
        ["sg_requests", "NODE"],
        ["sg_requests", "--desc", "NODE"],
        ["sg_logs", "NODE"],
        ["sg_senddiag", "--test", "NODE"],
        ["sg_get_lba_status", "--lba=0", "NODE"],
        ["sg_start", "--stop", "NODE"],
        ["sg_start", "--start", "NODE"],
        ["sg_sync", "NODE"],
        ["sg_verify", "--lba=0", "--count=1024", "NODE"],
        ["sg_verify", "--16", "--lba=0", "--count=1024", "NODE"],
    ):
        tool(machine, name, *arguments)


def test_unmap_and_write_same(machine: Room) -> None:
    node = machine.guest.block(KIND)
    machine.guest.shell(f"dd if=/dev/urandom of={node} bs=1M count=8 oflag=direct conv=fsync status=none")
    before = machine.used(KIND)
    tool(machine, "sg_unmap", "--lba=2048", "--num=4096", "--force", "NODE", check=False)
    tool(machine, "sg_unmap", "--lba=2048", "--num=4096", "NODE")
    assert machine.used(KIND) <= before - 2 * MIB
    tool(machine, "sg_write_same", "--16", "--unmap", "--lba=8192", "--num=2048", "NODE")
    tool(machine, "sg_write_same", "--16", "--ndob", "--lba=10240", "--num=2048", "NODE")
    machine.guest.shell("yes nvlane | head -c 512 >/tmp/pattern")
    tool(machine, "sg_write_same", "--10", "--in=/tmp/pattern", "--lba=0", "--num=1000", "--xferlen=512", "NODE")
    tool(machine, "sg_verify", "--ebytchk=3", "--ndo=512", "--in=/tmp/pattern", "--lba=0", "--count=1000", "NODE")
    pattern = (b"nvlane\n" * 80)[:512]
    with machine.file(KIND).open("rb") as file:
        assert file.read(512_000) == pattern * 1000
        assert file.read(512) != pattern
        file.seek(8192 * 512)
        assert not any(file.read(2 * MIB))
    machine.guest.shell(f"blkdiscard {node}; blkdiscard -z -l {4 * MIB} {node}")
    assert machine.used(KIND) < 5 * MIB


def test_a_reset_under_load_loses_nothing(machine: Room) -> None:
    node = machine.guest.block(KIND)
    fio = (
        f"fio --name=t --filename={node} --size=8m --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=32 "
        "--verify=crc32c --verify_fatal=1 --loops=4 --output=/tmp/fio-reset"
    )
    running = machine.guest.begin("sh", "-ec", f"{fio} || {{ cat /tmp/fio-reset; exit 1; }}")
    for _ in range(5):
        tool(machine, "sg_reset", "--device", "NODE")
        machine.guest.shell("sleep 0.3")
    machine.guest.wait(running, deadline=180)
    assert "I/O error" not in machine.guest.run("dmesg")


def test_targets_come_and_go_under_load(machine: Room) -> None:
    target, guest = machine.target, machine.guest
    node = guest.block(KIND)
    fio = (
        f"fio --name=t --filename={node} --size=8m --rw=randwrite --bs=4k --ioengine=libaio --direct=1 --iodepth=16 "
        "--verify=crc32c --verify_fatal=1 --loops=6 --output=/tmp/fio-plug"
    )
    running = guest.begin("sh", "-ec", f"{fio} || {{ cat /tmp/fio-plug; exit 1; }}")
    for number in (3, 7, 3):
        target.call("bdev_malloc_create", name="plugged", num_blocks=16384, block_size=4096)
        plugged = target.call(
            "vhost_scsi_controller_add_target", ctrlr=KIND, scsi_target_num=number, bdev_name="plugged"
        )
        assert plugged == number
        disk = guest.block(KIND, lun=number)
        guest.shell(f"dd if=/dev/urandom of={disk} bs=1M count=4 oflag=direct status=none; blkdiscard {disk}")
        assert guest.shell(f"cat /sys/block/{disk.removeprefix('/dev/')}/queue/logical_block_size").strip() == "4096"
        target.call("vhost_scsi_controller_remove_target", ctrlr=KIND, scsi_target_num=number)
        guest.shell(f"for turn in $(seq 200); do [ -e {disk} ] || exit 0; sleep 0.1; done; exit 1")
        target.call("bdev_malloc_delete", name="plugged")
    guest.wait(running, deadline=180)


# Left out: ReportLUNs, which crashes without an iSCSI session, and those of commands that no disk here offers.
FAMILIES = (
    "GetLBAStatus", "Inquiry", "Mandatory", "ModeSense6", "NoMedia", "PreventAllow", "Read10", "Read12", "Read16",
    "Read6", "ReadCapacity10", "ReadCapacity16", "ReadOnly", "ReportSupportedOpcodes", "StartStopUnit",
    "TestUnitReady", "Unmap", "Verify10", "Verify12", "Verify16", "Write10", "Write12", "Write16", "WriteSame10",
    "WriteSame16", "WriteVerify10", "WriteVerify12", "WriteVerify16",
)  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_libiscsi(machine: Room, family: str) -> None:
    """Its tests leave out what a disk does not offer, and say so; what they run has to pass."""
    test = f"--test=SCSI.{family}"
    said = tool(machine, "iscsi-test-cu", "--dataloss", test, "NODE", check=False, deadline=180)
    summary = re.search(r"\btests +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)", said)
    assert summary, said[-3000:]
    _, ran, passed, failed, _ = map(int, summary.groups())
    assert ran > 0 and failed == 0 and passed == ran, said[-6000:]
