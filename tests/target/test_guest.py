"""Linux in a real guest on both front ends and both kinds of ring: file systems under fio, discard, resize, read-only.

The guest is emulated, so nothing here is about speed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from machine_room import KINDS, MIB, SIZE, Room, room
from target_process import program

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(program() is None, reason="nvlane-target has not been built (tools/prepare)"),
]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    with room(tmp_path_factory.mktemp("guest")) as made:
        yield made
        assert made.guest.complaints() == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_guest_agreed_on_what_is_tested(machine: Room, kind: str) -> None:
    packed = 34
    features = machine.guest.shell(
        f"cat /sys/bus/pci/devices/0000:00:{machine.guest.disks[kind]:02x}.0/virtio*/features"
    )
    assert features.strip()[packed] == str(int(kind.endswith("packed")))
    node = machine.guest.block(kind).removeprefix("/dev/")
    queues = machine.guest.shell(f"ls -d /sys/block/{node}/mq/*").split()
    assert len(queues) == 2, "one queue a processor"
    assert int(machine.guest.shell(f"cat /sys/block/{node}/size")) * 512 == SIZE


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("system", ["ext4", "xfs"])
def test_a_file_system_keeps_what_fio_wrote(machine: Room, kind: str, system: str) -> None:
    node = machine.guest.block(kind)
    force = "-F" if system == "ext4" else "-f"
    fio = (
        "fio --name=t --directory=/mnt --size=6m --rw=randwrite --bsrange=512-64k --bs_unaligned=0 --blockalign=512 "
        "--ioengine=libaio --direct=1 --iodepth=32 --verify=crc32c --verify_fatal=1 --randseed=7 --output=/tmp/fio"
    )
    script = f"""
        mkfs.{system} -q {force} {node}
        mount {node} /mnt
        {fio} || {{ cat /tmp/fio; exit 1; }}
        head -c 5000001 /dev/urandom >/mnt/odd
        sha256sum /mnt/odd >/tmp/sum
        umount /mnt
        mount {node} /mnt
        sha256sum -c --quiet /tmp/sum
        {fio} --verify_only || {{ cat /tmp/fio; exit 1; }}
        umount /mnt
    """
    machine.guest.shell(script, deadline=120)
    check = f"e2fsck -fn {node}" if system == "ext4" else f"xfs_repair -n {node}"
    machine.guest.shell(check)


@pytest.mark.parametrize("kind", KINDS)
def test_discard_frees_the_space_and_zeroes_are_zeroes(machine: Room, kind: str) -> None:
    node = machine.guest.block(kind)
    machine.guest.shell(f"dd if=/dev/urandom of={node} bs=1M count=16 oflag=direct conv=fsync status=none")
    assert machine.used(kind) >= 16 * MIB
    assert machine.guest_digest(kind, 16 * MIB) == machine.digest(kind, 16 * MIB)
    machine.guest.shell(f"blkdiscard {node}")
    assert machine.used(kind) < MIB, "the whole disk was discarded"

    machine.guest.shell(f"dd if=/dev/urandom of={node} bs=1M count=4 oflag=direct status=none")
    machine.guest.shell(f"blkdiscard -z -o {MIB} -l {2 * MIB} {node}")
    with machine.file(kind).open("rb") as file:
        content = file.read(4 * MIB)
    assert not any(content[MIB : 3 * MIB])
    assert any(content[:MIB]) and any(content[3 * MIB :])
    assert machine.guest_digest(kind, 4 * MIB) == machine.digest(kind, 4 * MIB)


@pytest.mark.parametrize("kind", ["blk-split", "scsi-split"])
def test_trim_of_a_file_system_frees_the_space(machine: Room, kind: str) -> None:
    node = machine.guest.block(kind)
    # What ext4 would otherwise initialise after the mount takes space between the two looks.
    machine.guest.shell(f"""
        mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 {node}
        mount {node} /mnt
        head -c {24 * MIB} /dev/urandom >/mnt/file
        sync
    """)
    before = machine.used(kind)
    assert before >= 24 * MIB
    machine.guest.shell("rm /mnt/file; sync; fstrim /mnt; umount /mnt", deadline=120)
    assert machine.used(kind) <= before - 23 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_the_guest_sees_that_a_disk_has_grown(machine: Room, kind: str) -> None:
    node = machine.guest.block(kind).removeprefix("/dev/")
    larger = SIZE + 16 * MIB
    with machine.file(kind).open("r+b") as file:
        file.truncate(larger)
    method = "bdev_uring_rescan" if kind.endswith("packed") else "bdev_aio_rescan"
    machine.target.call(method, name=f"{kind}.0")
    # The kernel looks again by itself: a configuration interrupt (virtio-blk) or an event (virtio-scsi) tells it.
    script = (
        f"for turn in $(seq 100); do [ $(cat /sys/block/{node}/size) = {larger // 512} ] && exit 0; sleep 0.1; done"
    )
    machine.guest.shell(f"{script}; cat /sys/block/{node}/size; exit 1")
    last = larger // MIB - 1
    machine.guest.shell(f"dd if=/dev/urandom of=/dev/{node} bs=1M count=1 seek={last} oflag=direct status=none")
    with machine.file(kind).open("rb") as file:
        file.seek(larger - MIB)
        assert any(file.read())


def test_read_only_disks_are_read_only(machine: Room) -> None:
    """A read-only bdev behind virtio-scsi, plugged while the guest runs."""
    assert machine.guest.complaints() == []
    target = machine.target
    path = target.directory / "read-only.img"
    path.write_bytes(bytes(range(256)) * 4096)
    target.call("bdev_aio_create", name="read-only.0", filename=str(path), block_size=512, readonly=True)
    number = target.call(
        "vhost_scsi_controller_add_target", ctrlr="scsi-split", scsi_target_num=-1, bdev_name="read-only.0"
    )
    node = machine.guest.block("scsi-split", lun=number)
    name = node.removeprefix("/dev/")
    assert machine.guest.shell(f"cat /sys/block/{name}/ro").strip() == "1"
    assert machine.guest.shell(f"sha256sum <{node}") == machine.guest.shell(
        "python3 -c 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 4096)' | sha256sum"
    )
    refused = machine.guest.shell(f"dd if=/dev/zero of={node} count=1 2>&1 || true")
    assert "Read-only" in refused
    target.call("vhost_scsi_controller_remove_target", ctrlr="scsi-split", scsi_target_num=number)
    machine.guest.shell(f"for turn in $(seq 100); do [ -e /sys/block/{name} ] || exit 0; sleep 0.1; done; exit 1")
    target.call("bdev_aio_delete", name="read-only.0")
    assert path.read_bytes() == bytes(range(256)) * 4096
    machine.guest.listen_from_now()  # the disk that came said that it was powered on
