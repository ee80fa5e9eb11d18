"""Every kind of use is found, on the right node, with evidence; and an unused drive has none."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable

import pytest
from facts_tree import ADDRESS, CTRL, PCI, block, dm, host, mountinfo, process
from facts_tree import holder as held_by
from fakehost import Content, Fails, FakeHost, Link, Node

from nvlane.facts.shape import Use, UseKind
from nvlane.facts.usage import read_uses, take_survey
from nvlane.model.host import Output
from nvlane.model.pci import PciAddress

DRIVE = PciAddress.parse(ADDRESS)
DISK = f"{CTRL}/nvme0n1"


def uses(*more: dict[str, Content], commands: dict[str, Callable[..., Output]] | None = None) -> tuple[Use, ...]:
    return read_uses(host(*more, commands=commands or {}), DRIVE)


def kinds(found: tuple[Use, ...]) -> list[tuple[UseKind, str]]:
    return [(use.kind, use.device) for use in found]


def only(found: tuple[Use, ...], kind: UseKind, device: str, *evidence: str) -> None:
    assert kinds(found) == [(kind, device)]
    for words in evidence:
        assert words in found[0].evidence


def own_mounts(*lines: str) -> dict[str, Content]:
    text = mountinfo("24 1 254:0 / / rw - ext4 /dev/vda rw", *lines)
    return {"/proc/self/mountinfo": text, "/proc/1/mountinfo": text}


def test_an_unused_drive_has_no_use() -> None:
    assert uses() == ()


def test_root_file_system() -> None:
    text = mountinfo("24 1 259:2 / / rw - ext4 /dev/root rw", "30 24 259:2 /var /srv rw - ext4 /dev/root rw")
    found = uses({"/proc/self/mountinfo": text, "/proc/1/mountinfo": text})
    only(found, UseKind.ROOT, "nvme0n1p2", "mounted on / (ext4, /proc/")


def test_root_through_lvm_on_crypt() -> None:
    text = mountinfo("24 1 253:1 / / rw - xfs /dev/mapper/vg-root rw")
    found = uses(
        {"/proc/self/mountinfo": text, "/proc/1/mountinfo": text},
        dm(0, "CRYPT-LUKS2-abc-luks", "luks"),
        dm(1, "LVM-" + "a" * 64, "vg-root"),
        held_by("nvme0n1p2", "dm-0"),
        {"/sys/devices/virtual/block/dm-0/holders/dm-1": Link("../../dm-1")},
    )
    assert kinds(found) == [(UseKind.CRYPT, "nvme0n1p2"), (UseKind.LVM, "nvme0n1p2"), (UseKind.ROOT, "nvme0n1p2")]
    assert "through nvme0n1p2 - dm-0 - dm-1" in found[2].evidence
    assert "vg-root" in found[1].evidence


def test_root_as_a_layer_of_an_overlay() -> None:
    text = mountinfo(
        "24 1 0:30 / / rw - overlay overlay rw,lowerdir=/live/lower,upperdir=/run/upper,workdir=/run/work",
        "25 24 259:1 / /live rw - squashfs /dev/nvme0n1p1 ro",
    )
    found = uses({"/proc/self/mountinfo": text, "/proc/1/mountinfo": text})
    only(found, UseKind.ROOT, "nvme0n1p1", "/live (squashfs")


def test_mounted() -> None:
    only(uses(own_mounts("31 24 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw")), UseKind.MOUNT, "nvme0n1p1", "/srv (ext4")


def test_mounted_with_a_blank_in_its_place() -> None:
    found = uses(own_mounts("31 24 259:1 / /srv/my\\040data rw - ext4 /dev/nvme0n1p1 rw"))
    only(found, UseKind.MOUNT, "nvme0n1p1", "/srv/my data")


def test_mounted_only_in_another_mount_namespace() -> None:
    found = uses(
        process(70, "sleep", mnt="mnt:[2]"),
        {"/proc/70/mountinfo": mountinfo("90 80 259:1 / /mnt rw - vfat /dev/nvme0n1p1 rw")},
    )
    only(found, UseKind.MOUNT, "nvme0n1p1", "/mnt (vfat, /proc/70/mountinfo)")


def test_the_first_process_of_a_namespace_may_be_gone() -> None:
    found = uses(
        process(70, "zombie", mnt="mnt:[2]"),
        {"/proc/70/mountinfo": Fails(errno.EINVAL)},
        process(71, "sleep", mnt="mnt:[2]"),
        {"/proc/71/mountinfo": mountinfo("90 80 259:1 / /mnt rw - vfat /dev/nvme0n1p1 rw")},
    )
    only(found, UseKind.MOUNT, "nvme0n1p1", "/proc/71/mountinfo")


def test_a_root_of_a_container_is_a_mount_and_not_the_root_of_the_host() -> None:
    found = uses(
        process(70, "init", mnt="mnt:[2]"),
        {"/proc/70/mountinfo": mountinfo("90 80 259:1 / / rw - ext4 /dev/nvme0n1p1 rw")},
    )
    only(found, UseKind.MOUNT, "nvme0n1p1")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/sys/fs/ext4/nvme0n1p1", "this ext4"),
        ("/sys/fs/xfs/nvme0n1p1", "this xfs"),
        ("/sys/fs/f2fs/nvme0n1p1", "this f2fs"),
        ("/proc/fs/jbd2/nvme0n1p1-8", "journal of ext4"),
        ("/proc/fs/jbd2/nvme0n1p1", "journal of ext4"),
    ],
)
def test_a_file_system_that_is_mounted_where_no_process_shows_it(path: str, words: str) -> None:
    only(uses({f"{path}/info": "x"}), UseKind.MOUNT, "nvme0n1p1", path, words)


def test_an_external_log_is_a_use() -> None:
    found = uses(own_mounts("31 24 254:9 / /srv rw - xfs /dev/vdb rw,attr2,logdev=/dev/nvme0n1p2,noquota"))
    only(found, UseKind.MOUNT, "nvme0n1p2", "/srv (xfs")


def test_swap() -> None:
    swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p2 partition 520188 0 -2\n"
    only(uses({"/proc/swaps": swaps}), UseKind.SWAP, "nvme0n1p2", "/proc/swaps says /dev/nvme0n1p2")


def test_swap_on_a_logical_volume_known_by_its_other_name() -> None:
    swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/mapper/vg-swap partition 520188 0 -2\n"
    found = uses({"/proc/swaps": swaps}, dm(0, "LVM-" + "b" * 64, "vg-swap"), held_by("nvme0n1", "dm-0"))
    assert kinds(found) == [(UseKind.LVM, "nvme0n1"), (UseKind.SWAP, "nvme0n1")]


def test_a_swap_area_that_is_not_known_is_told() -> None:
    swaps = "Filename\tType\tSize\tUsed\tPriority\n/dev/elsewhere partition 520188 0 -2\n"
    survey = take_survey(host({"/proc/swaps": swaps}))
    assert any("/dev/elsewhere" in sentence for sentence in survey.unknown)


@pytest.mark.parametrize(
    ("uuid", "kind"),
    [
        ("LVM-" + "c" * 64, UseKind.LVM),
        ("CRYPT-LUKS2-0123-name", UseKind.CRYPT),
        ("mpath-eui.0025385b11b2a1ff", UseKind.MULTIPATH),
        ("part1-mpath-eui.0025385b11b2a1ff", UseKind.MULTIPATH),
        ("DMRAID-isw", UseKind.DM),
        ("", UseKind.DM),
    ],
)
def test_device_mapper(uuid: str, kind: UseKind) -> None:
    only(uses(dm(0, uuid, "thing"), held_by("nvme0n1p1", "dm-0")), kind, "nvme0n1p1", "holders/dm-0", "thing")


@pytest.mark.parametrize("name", ["md0", "md127", "md_d1"])
def test_md(name: str) -> None:
    found = uses(block(name, "9:0", f"/sys/devices/virtual/block/{name}"), held_by("nvme0n1", name))
    only(found, UseKind.MD, "nvme0n1", f"holders/{name}")


def test_a_mounted_partition_of_an_array() -> None:
    path = "/sys/devices/virtual/block/md0"
    found = uses(
        block("md0", "9:0", path),
        block("md0p1", "259:9", f"{path}/md0p1", disk="md0"),
        {"/sys/class/block/md0p1": Link(f"{path}/md0p1")},
        held_by("nvme0n1", "md0"),
        own_mounts("31 24 259:9 / /data rw - ext4 /dev/md0p1 rw"),
    )
    assert kinds(found) == [(UseKind.MD, "nvme0n1"), (UseKind.MOUNT, "nvme0n1")]
    assert "through nvme0n1 - md0 - md0p1" in found[1].evidence


def test_bcache() -> None:
    path = "/sys/devices/virtual/block/bcache0"
    found = uses(block("bcache0", "252:0", path), held_by("nvme0n1", "bcache0"), {f"{DISK}/bcache/state": "clean"})
    only(found, UseKind.BCACHE, "nvme0n1", "bcache0")


def test_a_bcache_cache_device_that_nothing_stands_on() -> None:
    only(uses({f"{DISK}/bcache/set": Link("../x")}), UseKind.BCACHE, "nvme0n1", "nvme0n1/bcache")


def test_btrfs_with_two_devices() -> None:
    # The mount names the first device only, and has an anonymous number.
    member = Link("../../../../block/x")
    found = uses(
        {"/sys/fs/btrfs/0b-1c/devices/vda": member, "/sys/fs/btrfs/0b-1c/devices/nvme0n1": member},
        own_mounts("31 24 0:44 /@ /data rw - btrfs /dev/vda rw,subvol=/@"),
    )
    assert kinds(found) == [(UseKind.MOUNT, "nvme0n1"), (UseKind.BTRFS, "nvme0n1")]
    assert "/data (btrfs" in found[0].evidence
    assert "/sys/fs/btrfs/0b-1c/devices/nvme0n1" in found[1].evidence


ZPOOL = """  pool: tank
 state: ONLINE
config:

\tNAME                STATE     READ WRITE CKSUM
\ttank                ONLINE       0     0     0
\t  mirror-0          ONLINE       0     0     0
\t    /dev/nvme0n1p1  ONLINE       0     0     0
\t    /dev/vda        ONLINE       0     0     0

errors: No known data errors
"""


def test_zfs_by_zpool() -> None:
    commands = {"zpool": lambda _argv: Output(status=0, stdout=ZPOOL, stderr="")}
    found = uses({"/sys/module/zfs/initstate": "live"}, commands=commands)
    only(found, UseKind.ZFS, "nvme0n1p1", "the pool tank has /dev/nvme0n1p1 (ONLINE)")


ZFS_MEMBER = {"device": "nvme0n1p1", "type": "zfs_member", "label": "tank", "usage": "filesystem"}
WIPEFS = {"wipefs": lambda _argv: Output(status=0, stdout=json.dumps({"signatures": [ZFS_MEMBER]}), stderr="")}


def test_zfs_by_signature_where_nothing_tells() -> None:
    found = uses({"/sys/module/zfs/initstate": "live"}, commands=WIPEFS)
    only(found, UseKind.ZFS, "nvme0n1p1", "zfs_member signature")


def test_zfs_data_without_the_module_is_no_use() -> None:
    assert uses(commands=WIPEFS) == ()


def loop(backing: str) -> dict[str, Content]:
    path = "/sys/devices/virtual/block/loop0"
    return {**block("loop0", "7:0", path), f"{path}/loop/backing_file": f"{backing}\n"}


@pytest.mark.parametrize("backing", ["/dev/nvme0n1p1", "/dev/disk/by-id/x", "/somewhere/nvme0n1p1 (deleted)"])
def test_loop_device_on_the_drive(backing: str) -> None:
    found = uses(loop(backing), {"/dev/disk/by-id/x": Link("../../nvme0n1p1")})
    only(found, UseKind.LOOP, "nvme0n1p1", backing)


def test_loop_device_on_a_file_is_no_use_of_the_drive() -> None:
    assert uses(loop("/var/lib/x.img"), {"/var/lib/x.img": "x"}) == ()


def test_open_handle() -> None:
    fd = Link("/dev/nvme0n1p1")
    found = uses(process(812, "postgres", {5: fd, 6: fd}))
    only(found, UseKind.OPEN, "nvme0n1p1", "process 812 (postgres) has /dev/nvme0n1p1 open")


def test_open_handle_by_a_node_of_another_name() -> None:
    fd = Link("/containers/a/dev/disk", opens=Node("block", (259, 0)))
    only(uses(process(812, "dd", {5: fd})), UseKind.OPEN, "nvme0n1", "/containers/a/dev/disk")


@pytest.mark.parametrize(("path", "node"), [("/dev/nvme0", "nvme0"), ("/dev/ng0n1", "ng0n1")])
def test_open_character_nodes(path: str, node: str) -> None:
    only(uses(process(5, "nvme-cli", {3: Link(path)})), UseKind.OPEN, node, path)


def test_a_file_on_a_remote_file_system_is_not_touched() -> None:
    there = host(
        own_mounts("31 24 0:60 / /net/home rw - nfs4 server:/home rw"),
        process(5, "bash", {3: Link("/net/home/file"), 4: Link("/dev/nvme0n1")}),
        {"/proc/5/fd/5": Link("/var/x", Fails(errno.ESTALE))},
    )
    assert [handle.path for handle in take_survey(there).handles] == ["/dev/nvme0n1"]
    assert "/proc/5/fd/4" in there.looked_at
    assert "/proc/5/fd/5" in there.looked_at
    assert "/proc/5/fd/3" not in there.looked_at


def test_many_readers_are_counted() -> None:
    found = uses(*(process(100 + n, "reader", {3: Link("/dev/nvme0n1")}) for n in range(9)))
    assert [use.kind for use in found] == [UseKind.OPEN] * 5
    assert found[-1].evidence == "5 further processes have it open"


def test_a_process_that_ends_meanwhile_is_fine() -> None:
    found = uses({"/proc/44/fd": Fails(errno.ESRCH), "/proc/44/ns/mnt": Fails(errno.ENOENT)})
    assert found == ()


def test_processes_that_this_user_may_not_see_are_told() -> None:
    denied = {"/proc/44/fd": Fails(errno.EACCES), "/proc/44/ns/mnt": Fails(errno.EACCES)}
    survey = take_survey(host(denied))
    assert survey.unknown == (
        "1 processes do not show this user their mounts and open files; run as root with CAP_SYS_PTRACE",
    )


NVMET = "/sys/kernel/config/nvmet/subsystems/nqn.test"


@pytest.mark.parametrize(("enabled", "count"), [("1", 1), ("0", 0)])
def test_nvmet_export(enabled: str, count: int) -> None:
    base = f"{NVMET}/namespaces/1"
    found = uses({f"{base}/device_path": "/dev/nvme0n1\n", f"{base}/enable": f"{enabled}\n"})
    assert [use.kind for use in found] == [UseKind.EXCLUSIVE] * count


def test_nvmet_passthru_of_the_controller() -> None:
    found = uses({f"{NVMET}/passthru/device_path": "/dev/nvme0\n", f"{NVMET}/passthru/enable": "1\n"})
    only(found, UseKind.EXCLUSIVE, "nvme0", "nvmet exports it")


def test_scsi_target() -> None:
    info = "Status: ACTIVATED\niBlock device: nvme0n1p1  UDEV PATH: /dev/nvme0n1p1 readonly: 0\n"
    found = uses({"/sys/kernel/config/target/core/iblock_0/disk/info": info})
    only(found, UseKind.EXCLUSIVE, "nvme0n1p1", "LIO")


def test_zram_writes_back() -> None:
    path = "/sys/devices/virtual/block/zram0"
    found = uses(block("zram0", "251:0", path), {f"{path}/backing_dev": "/dev/nvme0n1p2\n"})
    only(found, UseKind.EXCLUSIVE, "nvme0n1p2", "zram0 writes back to it")


def test_an_unknown_holder_is_a_use() -> None:
    only(uses(held_by("nvme0n1", "drbd0")), UseKind.HOLDER, "nvme0n1", "holders/drbd0")


def on_vfio(*more: dict[str, Content]) -> FakeHost:
    files = dict(host(*more).files)
    gone = (f"{PCI}/nvme", "/sys/class/nvme", "/sys/class/block/nvme", "/dev/nvme", "/dev/ng")
    files = {path: content for path, content in files.items() if not path.startswith(gone)}
    files[f"{PCI}/driver"] = Link("../../../../bus/pci/drivers/vfio-pci")
    return FakeHost(files)


@pytest.mark.parametrize("path", ["/dev/vfio/12", "/dev/vfio/noiommu-12", "/dev/vfio/devices/vfio3", "/dev/uio4"])
def test_a_drive_on_vfio_that_a_process_drives(path: str) -> None:
    node = Node("char", (511, 0))
    cdev: dict[str, Content] = {f"{PCI}/vfio-dev/vfio3/dev": "511:3\n", path: node}
    cdev[f"{PCI}/uio/uio4/dev"] = "243:4\n"
    found = read_uses(on_vfio(cdev, process(900, "qemu-system-x86", {9: Link(path)})), DRIVE)
    only(found, UseKind.OPEN, ADDRESS, "process 900 (qemu-system-x86)", path)


def test_a_drive_on_vfio_is_not_in_use_by_another_group() -> None:
    other: dict[str, Content] = {"/dev/vfio/13": Node("char", (511, 1)), "/dev/vfio/vfio": Node("char", (10, 196))}
    fds = {9: Link("/dev/vfio/13"), 10: Link("/dev/vfio/vfio")}
    assert read_uses(on_vfio(other, process(900, "qemu", fds)), DRIVE) == ()


def test_a_drive_driven_through_its_bar() -> None:
    found = read_uses(on_vfio(process(901, "spdk_tgt", {9: Link(f"{PCI}/resource0")})), DRIVE)
    only(found, UseKind.OPEN, ADDRESS, "spdk_tgt", "resource0")


def test_a_use_of_a_virtual_function_is_one_of_its_controller() -> None:
    vf = "/sys/devices/pci0000:00/0000:00:03.0/0000:04:00.1"
    more: dict[str, Content] = {
        f"{PCI}/sriov_numvfs": "1\n",
        f"{PCI}/virtfn0": Link("../0000:04:00.1"),
        "/sys/bus/pci/devices/0000:04:00.1": Link(vf),
        f"{vf}/class": "0x010802\n",
        f"{vf}/iommu_group": Link("../../../../kernel/iommu_groups/20"),
        "/dev/vfio/20": Node("char", (511, 2)),
    }
    assert uses(more) == ()
    found = uses(more, process(900, "qemu", {9: Link("/dev/vfio/20")}))
    only(found, UseKind.OPEN, "0000:04:00.1", "process 900", "its virtual function 0000:04:00.1")


METADATA = b"\0" * 512 + b"LABELONE" + b"\0" * 3576
METADATA += b'vg0 {\nid = "AbCdEf-0123-4567-89ab-cdef-GhIj-KlMnOp"\nseqno = 1\n'


def test_a_physical_volume_of_an_active_group_that_no_volume_is_on() -> None:
    node = {"/dev/nvme0n1p1": Node("block", (259, 1), METADATA)}
    active = dm(0, "LVM-AbCdEf0123456789abcdefGhIjKlMnOp" + "x" * 32, "vg0-data")
    only(uses(node, active), UseKind.LVM, "nvme0n1p1", "the group vg0", "vg0-data is active")
    assert uses(node) == ()
    assert uses(node, dm(0, "LVM-" + "z" * 64, "other-data")) == ()


def test_namespaces_under_native_multipath_are_found_by_their_heads() -> None:
    found = uses(
        {f"{CTRL}/nvme3c0n7": None, **block("nvme3n7", "259:7", "/sys/devices/virtual/nvme-subsystem/s3/nvme3n7")},
        own_mounts("31 24 259:7 / /head rw - ext4 /dev/nvme3n7 rw"),
    )
    only(found, UseKind.MOUNT, "nvme3n7", "/head")


def test_uses_of_a_block_device_by_name() -> None:
    found = read_uses(host(own_mounts("31 24 259:1 / /srv rw - ext4 /dev/nvme0n1p1 rw")), ("nvme0n1",))
    only(found, UseKind.MOUNT, "nvme0n1p1")
    assert read_uses(host(), ("nvme0n1", "vda"))[0].kind is UseKind.ROOT
