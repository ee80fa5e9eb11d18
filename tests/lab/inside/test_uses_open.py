"""Uses of a drive by processes, and by servers in the kernel, made for real: as in test_uses.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from spare import HOST, Spare, drives, end, modules_as_before, on_vfio, only, sh, spare_drive, wait

from nvlane.apply import process
from nvlane.facts.nvme_nodes import generic_name
from nvlane.facts.shape import UseKind
from nvlane.facts.usage import read_uses
from nvlane.model.errors import CommandFailed

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.environ.get("NVLANE_LAB") != "1", reason="makes and breaks things: in the lab only"),
]


@pytest.fixture
def spare() -> Iterator[Spare]:
    with spare_drive() as drive:
        yield drive


# Handles.


@pytest.mark.parametrize("which", ["block", "generic", "controller", "other name"])
def test_open_handle(spare: Spare, which: str) -> None:
    names = {
        "block": spare.name,
        "other name": spare.name,
        "generic": generic_name(spare.name),
        "controller": spare.drive.controller,
    }
    path = f"/dev/{names[which]}"
    if which == "other name":
        other = Path("/tmp/nvlane-test-node")
        os.mknod(other, 0o60600, Path(path).stat().st_rdev)
        spare.later.callback(other.unlink)
        path = str(other)
    pid = spare.holding("sh", "-c", f"exec 9<{path}; exec sleep 600", ready=lambda: bool(spare.uses()))
    only(spare, UseKind.OPEN, f"process {pid} ", path, device=names[which])


def test_a_drive_that_another_process_drives_through_vfio(spare: Spare) -> None:
    with on_vfio(spare) as node, ExitStack() as inner:
        assert spare.uses() == ()
        spare.later, outer = inner, spare.later
        pid = spare.holding("sh", "-c", f"exec 9<>{node}; exec sleep 600", ready=lambda: bool(spare.uses()))
        only(spare, UseKind.OPEN, f"process {pid} ", node, device=str(spare.drive.address))
        spare.later = outer


def test_a_virtual_function_that_a_process_drives(tmp_path: Path) -> None:
    """The controller cannot be taken away from under it."""
    parent = drives("LABVF")["LABVF"]
    assert parent.uses == ()
    base = Path(parent.address.sysfs)
    with modules_as_before(), ExitStack() as later:
        sh("modprobe", "-a", "vfio-pci", "vfio_iommu_type1")
        (base / "sriov_drivers_autoprobe").write_text("0")
        later.callback((base / "sriov_drivers_autoprobe").write_text, "1")
        (base / "sriov_numvfs").write_text("1")
        later.callback((base / "sriov_numvfs").write_text, "0")
        vf = (base / "virtfn0").resolve()
        (vf / "driver_override").write_text("vfio-pci")
        Path("/sys/bus/pci/drivers_probe").write_text(vf.name)
        node = f"/dev/vfio/{(vf / 'iommu_group').readlink().name}"
        assert read_uses(HOST, parent.address) == ()
        script = f"exec 9<>{node}; touch {tmp_path}/ready; exec sleep 600"
        pid = process.spawn(["sh", "-c", script], log=tmp_path / "log")
        later.callback(end, pid)
        wait("the group is open", (tmp_path / "ready").exists)
        found = read_uses(HOST, parent.address)
        assert {use.kind for use in found} == {UseKind.OPEN}
        assert any(f"on its virtual function {vf.name}" in use.evidence for use in found)
    assert drives("LABVF")["LABVF"].uses == ()


# The kernel's own servers.


def configfs(spare: Spare) -> Path:
    base = Path("/sys/kernel/config")
    spare.do("modprobe", "configfs")
    if not os.path.ismount(base):
        spare.do("mount", "-t", "configfs", "none", str(base), undo=("umount", str(base)))
    return base


def test_nvmet(spare: Spare) -> None:
    base = configfs(spare)
    spare.do("modprobe", "nvmet")
    subsystem = base / "nvmet/subsystems/nqn.2026-11.test:nvlane"
    namespace = subsystem / "namespaces/1"
    for directory in (subsystem, namespace):
        directory.mkdir()
        spare.later.callback(directory.rmdir)
    (namespace / "device_path").write_text(spare.node)
    assert spare.uses() == ()
    (namespace / "enable").write_text("1")
    spare.undo_write(str(namespace / "enable"), "0")
    only(spare, UseKind.EXCLUSIVE, "nvmet exports it", spare.node)


def test_scsi_target(spare: Spare) -> None:
    base = configfs(spare)
    try:
        spare.do("modprobe", "-a", "target_core_mod", "target_core_iblock")
    except CommandFailed as error:
        pytest.skip(f"this kernel has no SCSI target: {error}")
    hba = base / "target/core/iblock_7"
    disk = hba / "nvlanetest"
    for directory in (hba, disk):
        directory.mkdir(parents=True)
        spare.later.callback(directory.rmdir)
    (disk / "control").write_text(f"udev_path={spare.node}")
    (disk / "enable").write_text("1")
    only(spare, UseKind.EXCLUSIVE, "SCSI target (LIO)", spare.name)


def test_zram_writes_back(spare: Spare) -> None:
    spare.do("modprobe", "zram")
    zram = Path("/sys/block/zram0")
    if not (zram / "backing_dev").exists():
        pytest.skip("this kernel's zram has no writeback")
    (zram / "backing_dev").write_text(spare.node)
    (zram / "disksize").write_text("1M")
    spare.undo_write(str(zram / "reset"), "1")
    only(spare, UseKind.EXCLUSIVE, "zram0 writes back to it", spare.node)
