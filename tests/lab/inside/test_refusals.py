"""What nvlane refuses, the real thing before it: exit status 3, code, evidence, remedy, and nothing is changed."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from at_work import MIB, Said, nvlane, nvlane_alone, unchanged, write_spec
from lab_drives import controller, node, virtual_functions, wait
from partitions import partitions

from nvlane.apply import process

pytestmark = pytest.mark.lab

START = 8 * MIB  # behind the known content of the drive


def sh(*argv: str, text: str | None = None) -> str:
    return process.run(argv, input=text).stdout


def refusals(said: Said) -> list[dict[str, Any]]:
    """What `up --json` printed of a plan that was refused."""
    assert said.status == 3, str(said)
    assert said.json["error"]["kind"] == "PlanRefused"
    assert said.json["error"]["exit_status"] == 3
    assert "nothing was changed" in said.err
    return list(said.json["error"]["refusals"])


def refused(found: list[dict[str, Any]], lane: int | None, code: str, evidence: str, remedy: str) -> None:
    """One refusal has this code, and its evidence and remedy hold these patterns."""
    fitting = [one for one in found if one["code"] == code and one["lane"] == lane]
    assert fitting, f"lane {lane} has no {code}: {[(one['lane'], one['code']) for one in found]}"
    assert any(
        re.search(evidence, " ".join(one["evidence"])) and re.search(remedy, one["remedy"]) for one in fitting
    ), fitting


def up(spec: Path) -> Said:
    with unchanged():
        return nvlane("up", "--json", spec)


# Drives in use, in every way at once: each use on a partition of one drive.


@pytest.fixture(scope="module")
def in_use() -> Iterator[dict[str, str]]:
    """LABSPARE used in nine ways: a partition for each. Names of uses to nodes."""
    disk = node("LABSPARE")
    names = ("swap", "lvm", "md", "crypt", "bcache", "loop", "open", "namespace", "btrfs")
    with ExitStack() as later:
        later.callback(sh, "blkdiscard", "--offset", str(START), "--length", str(384 * MIB), disk)
        nodes = later.enter_context(partitions(disk, START, [32 * MIB] * 8 + [120 * MIB]))
        parts = dict(zip(names, nodes, strict=True))
        for name, use in USES.items():
            use(parts[name], later)
        yield parts


def _swap(part: str, later: ExitStack) -> None:
    sh("mkswap", part)
    sh("swapon", part)
    later.callback(sh, "swapoff", part)


def _lvm(part: str, later: ExitStack) -> None:
    quiet = ("--devicesfile", "", "--quiet")
    sh("lvm", "pvcreate", *quiet, "-ff", "-y", part)
    sh("lvm", "vgcreate", *quiet, "refusals", part)
    sh("lvm", "lvcreate", *quiet, "-y", "-Zn", "-L", "8M", "-n", "data", "refusals")
    later.callback(sh, "lvm", "vgchange", *quiet, "-an", "refusals")


def _md(part: str, later: ExitStack) -> None:
    sh("modprobe", "raid1")
    create = ("mdadm", "--create", "/dev/md9", "--run", "--level=1", "--raid-devices=2", "--metadata=1.2")
    sh(*create, part, "missing")
    later.callback(sh, "mdadm", "--stop", "/dev/md9")


def _crypt(part: str, later: ExitStack) -> None:
    sh("modprobe", "dm_crypt")
    plain = ("cryptsetup", "open", "--type=plain", "--cipher=aes-cbc-essiv:sha256", "--key-size=256", "--hash=sha256")
    sh(*plain, "--key-file=-", part, "refusals-crypt", text="secret")
    later.callback(sh, "cryptsetup", "close", "refusals-crypt")


def _bcache(part: str, later: ExitStack) -> None:
    sh("modprobe", "bcache")
    sh("make-bcache", "-B", "--wipe-bcache", part)
    Path("/sys/fs/bcache/register").write_text(part)
    bcache = Path("/sys/class/block", Path(part).name, "bcache")
    wait("bcache has it", bcache.exists)
    later.callback(wait, "bcache let it go", lambda: not bcache.exists())
    later.callback((bcache / "stop").write_text, "1")


def _loop(part: str, later: ExitStack) -> None:
    sh("modprobe", "loop")
    later.callback(sh, "losetup", "--detach", sh("losetup", "--find", "--show", part).strip())


def _open(part: str, later: ExitStack) -> None:
    later.callback(os.close, os.open(part, os.O_RDONLY))


def _namespace(part: str, later: ExitStack) -> None:
    sh("mke2fs", "-q", "-t", "ext4", part)
    place = later.enter_context(tempfile.TemporaryDirectory(prefix="nvlane-refusals-"))
    script = f"mount {part} {place} && touch {place}/ready && exec sleep 600"
    log = Path(later.enter_context(tempfile.TemporaryDirectory()), "log")
    pid = process.spawn(["unshare", "--mount", "sh", "-c", script], log=log)
    later.callback(os.waitpid, pid, 0)
    later.callback(os.kill, pid, 9)
    wait("it is mounted elsewhere", lambda: part in Path(f"/proc/{pid}/mounts").read_text())
    assert part not in Path("/proc/self/mounts").read_text()


def _btrfs(part: str, later: ExitStack) -> None:
    sh("modprobe", "btrfs")
    sh("mkfs.btrfs", "-q", "-f", part)
    place = later.enter_context(tempfile.TemporaryDirectory(prefix="nvlane-refusals-"))
    sh("mount", "-t", "btrfs", part, place)
    later.callback(sh, "btrfs", "device", "scan", "--forget")
    later.callback(sh, "umount", place)


USES = {
    "swap": _swap, "lvm": _lvm, "md": _md, "crypt": _crypt, "bcache": _bcache, "loop": _loop, "open": _open,
    "namespace": _namespace, "btrfs": _btrfs,
}  # fmt: skip


@pytest.fixture(scope="module")
def found(in_use: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:  # noqa: ARG001
    """One `up` of a spec in which every lane wants what it must not have."""
    spec = write_spec(
        tmp_path_factory.mktemp("refusals"),
        "refused",
        'kind = "passthrough"\ndrive = "serial:LABSPARE"',
        'kind = "userspace"\ndrive = "serial:LABMOUNT"',
        'kind = "vhost-user"\ndrive = "serial:LABSIBA"',
        'kind = "passthrough"\ndrive = "serial:LABROOT"',
        'kind = "passthrough"\ndrive = "serial:NOSUCH"',
        'kind = "userspace"\ndrive = "serial:LABDRIVE2"\nnamespace = 7',
        f'kind = "emulated"\nnamespaces = [{{ device = "{node("LABSIBB")}" }}]',
        f'kind = "vhost-user"\nfile = "{node("LABROOT")}"',
        'kind = "passthrough"\ndrive = "serial:LABDRIVE1"\niommu = "iommufd"',
        'kind = "nvdimm"\nbacking = "dax"\npath = "/dev/dax9.9"',
        'kind = "nvdimm"\nbacking = "hugepages"\nsize = "64GiB"',
    )
    return refusals(up(spec))


@pytest.mark.parametrize(
    ("lane", "code", "evidence", "remedy"),
    [
        (0, "drive-swap", r"/proc/swaps", r"swapoff /dev/nvme\d+n1p1"),
        (0, "drive-lvm", r"refusals-data", r"vgchange -an"),
        (0, "drive-md", r"holders/md9", r"mdadm --stop"),
        (0, "drive-crypt", r"refusals-crypt", r"cryptsetup close"),
        (0, "drive-bcache", r"bcache", r"bcache/stop"),
        (0, "drive-loop", r"loop\d+", r"losetup -d"),
        (0, "drive-open", r"\bpython3?\b|pytest", r"end the process"),
        (0, "drive-mount", r"nvlane-refusals-\w+ \(ext4, /proc/\d+/mountinfo\)", r"umount"),
        (0, "drive-btrfs", r"/sys/fs/btrfs/", r"unmount the file system"),
        (1, "drive-mount", r"/srv/mounted", r"umount /dev/nvme"),
        (2, "sibling-in-use", r"/srv/sibling", r"umount .*slot with a group of its own"),
        (3, "drive-root", r"/ ", r"take another one"),
        (4, "no-drive", r"", r"LABDRIVE1"),
        (5, "no-namespace", r"namespaces of nvme\d+: 1, 2", r"name one that it has"),
        (6, "drive-mount", r"/srv/sibling", r"umount"),
        (7, "drive-root", r"/ ", r"take another one"),
        (8, "no-iommufd", r"lacks CONFIG_IOMMUFD", r"auto"),
        (9, "no-dax-device", r"/sys/bus/dax/devices", r"ndctl create-namespace"),
    ],
)  # fmt: skip
def test_refused(found: list[dict[str, Any]], lane: int, code: str, evidence: str, remedy: str) -> None:
    refused(found, lane, code, evidence, remedy)


def test_every_use_is_named_and_nothing_else_is_refused(found: list[dict[str, Any]]) -> None:
    uses = {(one["code"], re.search(r"n1p(\d)", one["reason"])[1]) for one in found if one["lane"] == 0}
    assert uses == {
        ("drive-swap", "1"), ("drive-lvm", "2"), ("drive-md", "3"), ("drive-crypt", "4"), ("drive-bcache", "5"),
        ("drive-loop", "6"), ("drive-open", "7"), ("drive-mount", "8"), ("drive-mount", "9"), ("drive-btrfs", "9"),
    }  # fmt: skip
    assert [one["code"] for one in found if one["lane"] == 1] == ["drive-mount"]


# The rest, one by one.


def test_too_few_hugepages(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "huge", memory="64GiB", memory_backing="hugepages", node=0)
    refused(refusals(up(spec)), None, "hugepages-short", r"node 0: 0 pages of 2MiB", r"hugepagesz=")


def test_hugepages_of_a_size_that_is_not_there(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "huge", memory_backing="hugepages", hugepage_size="16MiB")
    refused(refusals(up(spec)), None, "hugepage-size", r"2MiB on node 0", r"page size")


def test_physical_function_with_its_functions_enabled(tmp_path: Path) -> None:
    with virtual_functions("LABVF", 1):
        spec = write_spec(tmp_path, "physical", 'kind = "passthrough"\ndrive = "serial:LABVF"')
        refused(refusals(up(spec)), 0, "vfs-enabled", r"sriov_numvfs is 1", r"/vf0")


def test_a_qemu_that_was_built_with_little(tmp_path: Path) -> None:
    """Debian's microvm build is a real QEMU without PCI, so without nearly all that a lane needs."""
    spec = write_spec(
        tmp_path,
        "lean",
        f'kind = "emulated"\nnamespaces = [{{ image = "{tmp_path}/disk.raw", size = "64MiB" }}]',
        'kind = "passthrough"\ndrive = "serial:LABDRIVE1"',
        qemu="qemu-system-x86_64-microvm",
    )
    found = refusals(up(spec))
    refused(found, 0, "qemu-lacks-device", r"/qemu-system-x86_64-microvm .*qom-list-types", r"use a QEMU that has it")
    refused(found, 1, "qemu-lacks-device", r"qom-list-types", r"use a QEMU that has it")
    assert not (tmp_path / "disk.raw").exists()


def test_no_qemu(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "none", qemu="qemu-system-nothing")
    refused(refusals(up(spec)), None, "no-qemu", r"qemu-system-nothing", r"install it")


def test_somebody_who_is_not_root_and_may_lock_little(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    spec = write_spec(tmp_path, "poor", 'kind = "passthrough"\ndrive = "serial:LABDRIVE1"')
    with tempfile.TemporaryDirectory() as home, unchanged():
        os.chown(home, 65534, 65534)
        said = nvlane_alone(
            "up", "--json", spec,
            under=("prlimit", "--memlock=65536:65536", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
            env={"HOME": home, "XDG_RUNTIME_DIR": home, "XDG_STATE_HOME": home, "XDG_CACHE_HOME": home},
        )  # fmt: skip
    found = refusals(said)
    refused(found, 0, "not-root", r"effective uid 65534", r"sudo")
    refused(found, 0, "memlock", r"Max locked memory", r"LimitMEMLOCK")


def test_image_with_another_size(tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    sh("qemu-img", "create", "-q", "-f", "qcow2", str(image), "10M")
    content = image.read_bytes()
    spec = write_spec(tmp_path, "size", f'kind = "emulated"\nnamespaces = [{{ image = "{image}", size = "20MiB" }}]')
    refused(refusals(up(spec)), 0, "image-size", r"qcow2, 10485760 bytes", r"leave size out")
    assert image.read_bytes() == content


def test_a_drive_that_is_held_open_by_its_controller_node(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "handle", 'kind = "passthrough"\ndrive = "serial:LABDRIVE1"')
    with Path("/dev", controller("LABDRIVE1").name).open("rb"):
        refused(refusals(up(spec)), 0, "drive-open", r"/dev/nvme\d+\b", r"end the process")


def test_plan_says_the_same_and_exits_the_same(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, "plan", 'kind = "passthrough"\ndrive = "serial:LABMOUNT"')
    said = nvlane("plan", spec)
    assert said.status == 3
    assert "[drive-mount]" in said.out
    assert "/srv/mounted" in said.out
