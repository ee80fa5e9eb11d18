"""Every way to use a drive, made for real on LABSPARE: `read_uses` finds it with evidence, and nothing after clean-up.

Runs inside the lab, as root:  nvlane lab run python3 -m pytest /nvlane/tests/lab/inside/test_uses.py
Here: file systems, and devices on the device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from spare import MIB, Spare, drives, ext4, kernel_refuses, kinds, only, sh, spare_drive, wait

from nvlane.facts.shape import UseKind

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.environ.get("NVLANE_LAB") != "1", reason="makes and breaks things: in the lab only"),
]


@pytest.fixture
def spare() -> Iterator[Spare]:
    with spare_drive() as drive:
        yield drive


# What the lab has from the start.


def test_drives_of_the_lab() -> None:
    there = drives()
    assert [use.kind for use in there["LABROOT"].uses] == [UseKind.ROOT]
    for serial, place in (("LABMOUNT", "/srv/mounted"), ("LABSIBB", "/srv/sibling")):
        assert [use.kind for use in there[serial].uses] == [UseKind.MOUNT]
        assert place in there[serial].uses[0].evidence
    assert there["LABSIBA"].uses == ()


def test_namespaces_and_content_of_the_lab() -> None:
    there = drives()
    assert [(n.nsid, n.size, n.block_size) for n in there["LABDRIVE2"].namespaces] == [
        (1, 1024 * MIB, 4096),
        (2, 512 * MIB, 4096),
    ]
    assert [c.what for c in there["LABDRIVE1"].contents] == ["ext4, label LABDRIVE1"]
    assert [c.what for c in there["LABSIBA"].contents] == ["data without a known signature"]


# File systems.


def test_mount(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    spare.do("mount", spare.node, place, undo=("umount", place))
    only(spare, UseKind.MOUNT, f"{place} (ext4", "mountinfo")
    assert kernel_refuses(spare.node)


def test_mount_of_a_partition(spare: Spare) -> None:
    part = spare.partition()
    ext4(spare, part)
    place = spare.directory()
    spare.do("mount", part, place, undo=("umount", place))
    only(spare, UseKind.MOUNT, place, device=f"{spare.name}p1")


def test_mount_in_the_namespace_of_another_process(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    script = f"mount {spare.node} {place} && touch {place}/ready && exec sleep 600"
    pid = spare.holding("unshare", "--mount", "sh", "-c", script, ready=lambda: "mounted on" in str(spare.uses()))
    assert place not in Path("/proc/self/mountinfo").read_text()
    found = spare.uses()
    assert kinds(found) == [(UseKind.MOUNT, spare.name)]
    assert f"/proc/{pid}/mountinfo" in found[0].evidence


def test_mount_in_a_namespace_without_a_process(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    keep = Path("/tmp/nvlane-test-ns")
    keep.mkdir()
    spare.later.callback(keep.rmdir)
    spare.do("mount", "--bind", str(keep), str(keep), undo=("umount", str(keep)))
    spare.do("mount", "--make-private", str(keep))
    (keep / "mnt").touch()
    spare.later.callback((keep / "mnt").unlink)
    spare.do("unshare", f"--mount={keep}/mnt", "mount", spare.node, place, undo=("umount", f"{keep}/mnt"))
    only(spare, UseKind.MOUNT, f"/sys/fs/ext4/{spare.name}", "no process shows it")
    assert kernel_refuses(spare.node)


def test_lazily_unmounted(spare: Spare) -> None:
    ext4(spare)
    place = spare.directory()
    spare.do("mount", spare.node, place)
    spare.later.callback(wait, "the file system is gone", lambda: not kernel_refuses(spare.node))
    spare.holding("sh", "-c", f"cd {place} && touch ready && exec sleep 600", ready=Path(place, "ready").exists)
    spare.do("umount", "--lazy", place)
    only(spare, UseKind.MOUNT, f"/sys/fs/ext4/{spare.name}")


def test_btrfs_of_two_devices(spare: Spare) -> None:
    other = spare.loop(200)
    spare.do("modprobe", "btrfs")
    spare.do("mkfs.btrfs", "-q", "-f", "-d", "single", other, spare.node)
    spare.do("btrfs", "device", "scan")
    place = spare.directory()
    spare.do("mount", other, place, undo=("umount", place))
    found = spare.uses()
    assert kinds(found) == [(UseKind.MOUNT, spare.name), (UseKind.BTRFS, spare.name)]
    assert place in found[0].evidence
    assert f"devices/{spare.name}" in found[1].evidence
    spare.later.callback(sh, "btrfs", "device", "scan", "--forget")


def test_swap(spare: Spare) -> None:
    spare.do("mkswap", spare.node)
    spare.do("swapon", spare.node, undo=("swapoff", spare.node))
    only(spare, UseKind.SWAP, "/proc/swaps", spare.node)


# Devices on the device.


def lvm(spare: Spare, *argv: str, undo: tuple[str, ...] = ()) -> None:
    quiet = ("--devicesfile", "", "--quiet")
    spare.do("lvm", argv[0], *quiet, *argv[1:], undo=("lvm", undo[0], *quiet, *undo[1:]) if undo else ())


def test_lvm(spare: Spare) -> None:
    lvm(spare, "pvcreate", "-ff", "-y", spare.node, undo=("pvremove", "-ff", "-y", spare.node))
    lvm(spare, "vgcreate", "nvlanetest", spare.node, undo=("vgremove", "-f", "nvlanetest"))
    assert spare.uses() == ()  # a group without an active volume is content
    assert [c.what.split(",")[0] for c in drives("LABSPARE")["LABSPARE"].contents] == ["LVM2_member"]
    lvm(spare, "lvcreate", "-y", "-Zn", "-L", "64M", "-n", "data", "nvlanetest")
    only(spare, UseKind.LVM, "holders/dm-", "nvlanetest-data", "LVM-")
    ext4(spare, "/dev/mapper/nvlanetest-data")
    place = spare.directory()
    spare.do("mount", "/dev/mapper/nvlanetest-data", place, undo=("umount", place))
    assert kinds(spare.uses()) == [(UseKind.LVM, spare.name), (UseKind.MOUNT, spare.name)]


def test_lvm_volume_on_another_member_of_the_group(spare: Spare) -> None:
    other = spare.loop(200)
    lvm(spare, "pvcreate", "-ff", "-y", spare.node, undo=("pvremove", "-ff", "-y", spare.node))
    lvm(spare, "vgcreate", "nvlanetest", spare.node, other, undo=("vgremove", "-f", "nvlanetest"))
    lvm(spare, "lvcreate", "-y", "-Zn", "-L", "64M", "-n", "data", "nvlanetest", other)
    only(spare, UseKind.LVM, "the group nvlanetest", "nvlanetest-data is active")


def test_md(spare: Spare) -> None:
    spare.do("modprobe", "raid1")
    create = ("mdadm", "--create", "/dev/md7", "--run", "--level=1", "--raid-devices=2", "--metadata=1.2")
    spare.later.callback(sh, "mdadm", "--zero-superblock", spare.node)
    spare.do(*create, spare.node, "missing", undo=("mdadm", "--stop", "/dev/md7"))
    only(spare, UseKind.MD, "holders/md7")
    assert kernel_refuses(spare.node)


def test_crypt(spare: Spare) -> None:
    spare.do("modprobe", "dm_crypt")
    fast = ("--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-", "-q")
    spare.do("cryptsetup", "luksFormat", *fast, spare.node, text="secret")
    opened = ("cryptsetup", "open", "--key-file", "-", spare.node, "nvlanetest")
    spare.do(*opened, text="secret", undo=("cryptsetup", "close", "nvlanetest"))
    only(spare, UseKind.CRYPT, "nvlanetest", "CRYPT-")


def dm_table(spare: Spare, table: str, *options: str) -> None:
    make = ("dmsetup", "create", "nvlanetest", "--noudevsync", *options, "--table", table)
    spare.do(*make, undo=("dmsetup", "remove", "--retry", "--noudevsync", "nvlanetest"))


def test_device_mapper(spare: Spare) -> None:
    dm_table(spare, f"0 2048 linear {spare.node} 0")
    only(spare, UseKind.DM, "nvlanetest")


def test_multipath(spare: Spare) -> None:
    spare.do("modprobe", "-a", "dm_multipath", "dm_round_robin")
    sectors = spare.drive.namespaces[0].size // 512
    # By bios, for the head of a native multipath namespace takes no requests.
    table = f"0 {sectors} multipath 2 queue_mode bio 0 1 1 round-robin 0 1 1 {spare.node} 1"
    dm_table(spare, table, "--uuid", "mpath-nvlanetest")
    only(spare, UseKind.MULTIPATH, "mpath-nvlanetest")


def test_bcache_backing_device(spare: Spare) -> None:
    spare.do("modprobe", "bcache")
    spare.do("wipefs", "--all", "--quiet", spare.node)
    spare.do("make-bcache", "-B", "--wipe-bcache", spare.node)
    spare.write("/sys/fs/bcache/register", spare.node)
    bcache = Path(f"/sys/class/block/{spare.name}/bcache")
    wait("bcache has it", bcache.exists)
    spare.later.callback(wait, "bcache let it go", lambda: not bcache.exists() and not kernel_refuses(spare.node))
    spare.undo_write(f"{bcache}/stop", "1")
    only(spare, UseKind.BCACHE, "bcache")
    assert kernel_refuses(spare.node)


def test_bcache_cache_device(spare: Spare) -> None:
    spare.do("modprobe", "bcache")
    spare.do("wipefs", "--all", "--quiet", spare.node)
    spare.do("make-bcache", "-C", "--wipe-bcache", spare.node)
    spare.write("/sys/fs/bcache/register", spare.node)
    bcache = Path(f"/sys/class/block/{spare.name}/bcache")
    wait("bcache has it", bcache.exists)
    spare.later.callback(wait, "bcache let it go", lambda: not bcache.exists() and not kernel_refuses(spare.node))
    spare.undo_write(f"{bcache}/set/stop", "1")
    only(spare, UseKind.BCACHE, "registered with bcache")


def test_loop_and_a_file_system_on_it(spare: Spare) -> None:
    ext4(spare)
    spare.do("modprobe", "loop")
    loop = spare.do("losetup", "--find", "--show", spare.node).strip()
    spare.later.callback(sh, "losetup", "--detach", loop)
    only(spare, UseKind.LOOP, f"says {spare.node}")
    place = spare.directory()
    spare.do("mount", loop, place, undo=("umount", place))
    found = spare.uses()
    assert kinds(found) == [(UseKind.LOOP, spare.name), (UseKind.MOUNT, spare.name)]
    assert f"through {spare.name} - {loop.removeprefix('/dev/')}" in found[1].evidence
