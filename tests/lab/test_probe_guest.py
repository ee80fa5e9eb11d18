"""The probe guest, really booted: what it sees of the drives that QEMU gives it, and what it proves about them.

Inside the lab it runs under nested KVM. Outside it takes the kernel from the lab's image, or an installed one, and
emulates the processor.
"""

from __future__ import annotations

import hashlib
import os
import platform
import random
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from nvlane.apply import initramfs
from nvlane.apply.process import run
from nvlane.lab.emulator import emulator
from nvlane.model.errors import WireError
from nvlane.verify.guest import GuestFault
from nvlane.verify.pattern import pattern
from nvlane.verify.probe import ProbeGuest

pytestmark = pytest.mark.lab

MIB = 1 << 20
IN_LAB = os.environ.get("NVLANE_LAB") == "1"


def installed_kernel() -> tuple[str, Path, Path] | None:
    """A kernel of this host with its modules: release, file, the modules' root."""
    releases = [platform.release(), *(path.name.removeprefix("vmlinuz-") for path in Path("/boot").glob("vmlinuz-*"))]
    for release in releases:
        kernel = Path("/boot", f"vmlinuz-{release}")
        if kernel.is_file() and Path("/lib/modules", release, "modules.dep").is_file():
            return release, kernel, Path("/lib/modules")
    return None


def kernel_of_the_lab(scratch: Path) -> tuple[str, Path, Path] | None:
    """The kernel of the lab's cached image; its modules are read out of the file system without mounting it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "nvlane/lab/image")
    for image in cache.glob("*/root.img"):
        release = (image.parent / "release").read_text().strip()
        root = scratch / "modules"
        root.mkdir()
        # One MiB: the partition table stands before the file system.
        run(["debugfs", "-R", f"rdump /usr/lib/modules/{release} {root}", f"{image}?offset={MIB}"])
        if (root / release / "modules.dep").is_file():
            return release, image.parent / "vmlinuz", root
    return None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A booted probe guest and the files behind its drives."""

    guest: ProbeGuest
    image: initramfs.ProbeGuestImage
    process: subprocess.Popen[bytes]
    socket: Path
    nvme: Path
    zoned: Path
    virtio: Path
    scsi: Path
    boot_seconds: float


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    scratch = tmp_path_factory.mktemp("probe-guest")
    found = installed_kernel() or kernel_of_the_lab(scratch)
    if found is None:
        pytest.skip("no kernel with its modules under /boot, and no lab image in the cache (nvlane lab up makes one)")
    release, kernel, modules = found
    image = initramfs.build_probe_guest(release, scratch / "cache", modules_root=modules, kernel=kernel)
    drives = {name: scratch / name for name in ("nvme", "zoned", "virtio", "scsi", "pmem")}
    for path in drives.values():
        with path.open("wb") as stream:
            stream.truncate(64 * MIB)
    with drives["pmem"].open("wb") as stream:
        stream.truncate(258 * MIB)
    with drives["nvme"].open("r+b") as stream:
        stream.seek(3 * MIB)
        stream.write(random.Random(1).randbytes(MIB))
    qemu = emulator(print)
    start = time.monotonic()
    log = (scratch / "qemu.log").open("wb")
    words = [*qemu.argv, *arguments(image, scratch, drives)]
    process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, **dict(qemu.environment)})
    try:
        socket = scratch / "probe.sock"
        end = start + 20
        while not socket.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        assert process.poll() is None, (scratch / "qemu.log").read_text()
        with ProbeGuest(socket) as guest:
            guest.wait_until_up(deadline=60)
            yield Machine(
                guest=guest,
                image=image,
                process=process,
                socket=socket,
                boot_seconds=time.monotonic() - start,
                **{name: drives[name] for name in ("nvme", "zoned", "virtio", "scsi")},
            )
    finally:
        process.kill()
        process.wait()
        log.close()


def arguments(image: initramfs.ProbeGuestImage, scratch: Path, drives: dict[str, Path]) -> list[str]:
    """One of each front end; the lab's own nested KVM where there is one."""
    kvm = IN_LAB and Path("/dev/kvm").exists()
    disks = [
        word
        for name in ("nvme", "zoned", "virtio", "scsi")
        for word in ("-drive", f"file={drives[name]},format=raw,if=none,id={name}")
    ]
    devices = [
        "virtio-serial-pci",
        "virtserialport,chardev=probe,name=org.nvlane.probe.0",
        "nvme,id=controller,serial=NVME1,addr=0x8",
        "nvme-ns,drive=nvme,bus=controller,nsid=1",
        "nvme-ns,drive=zoned,bus=controller,nsid=2,zoned=true,zoned.zone_size=16M,logical_block_size=4096,"
        "physical_block_size=4096",
        "virtio-blk-pci,drive=virtio,serial=VIRTIO1,addr=0x9",
        "virtio-scsi-pci,id=hba,addr=0xa",
        "scsi-hd,drive=scsi,bus=hba.0,lun=3,serial=SCSI1",
        "nvdimm,memdev=pmem,label-size=2M",
    ]
    return [
        *("-accel", "kvm" if kvm else "tcg", "-cpu", "host" if kvm else "max"),
        *("-machine", "q35,nvdimm=on,sata=off,smbus=off", "-m", "512,slots=2,maxmem=4G"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.cmdline),
        *("-serial", f"file:{scratch / 'console.log'}"),
        *("-chardev", f"socket,id=probe,path={scratch / 'probe.sock'},server=on,wait=off"),
        *("-object", f"memory-backend-file,id=pmem,share=on,mem-path={drives['pmem']},size=258M"),
        *disks,
        *(word for device in devices for word in ("-device", device)),
    ]


def test_it_boots_and_is_process_one(machine: Machine) -> None:
    hello = machine.guest.hello()
    print(f"probe guest up after {machine.boot_seconds:.2f} s of wall time, {hello.uptime_seconds:.2f} s of its own")
    assert hello.is_probe_guest
    assert hello.kernel == machine.image.release
    assert re.fullmatch(r"[0-9a-f-]{36}", hello.boot_id)


def test_it_sees_the_nvme_controller_and_its_namespaces(machine: Machine) -> None:
    machine.guest.resolve({"nvme_serial": "NVME1", "nsid": 2}, deadline=20)
    seen = machine.guest.inventory()["nvme"]
    (controller,) = seen["controllers"]
    assert (controller["serial"], controller["address"], controller["driver"]) == ("NVME1", "0000:00:08.0", "nvme")
    assert (controller["vendor"], controller["model"]) == ("0x1b36", "QEMU NVMe Ctrl")
    plain, zoned = sorted(seen["namespaces"], key=lambda namespace: namespace["nsid"])
    assert (plain["nsid"], plain["size_bytes"], plain["zoned"]) == (1, 64 * MIB, "none")
    assert (zoned["nsid"], zoned["logical_block_size"], zoned["zoned"]) == (2, 4096, "host-managed")
    assert (zoned["zone_bytes"], zoned["nr_zones"]) == (16 * MIB, 4)
    zones = machine.guest.call("zone_report", device=zoned["path"])["zones"]
    assert [zone["condition"] for zone in zones] == ["empty"] * 4


@pytest.mark.parametrize(
    ("by", "serial", "driver"),
    [
        ({"pci": "0000:00:09.0"}, "VIRTIO1", "virtio_blk"),
        ({"pci": "0000:00:0a.0", "scsi_lun": 3}, "SCSI1", "sd"),
        ({"pci": "0000:00:08.0", "nsid": 1}, "NVME1", "nvme"),
    ],
)
def test_every_front_end_is_found_by_its_place(
    machine: Machine, by: dict[str, object], serial: str, driver: str
) -> None:
    path = machine.guest.resolve(by, deadline=20)
    (block,) = [block for block in machine.guest.inventory()["block"] if block["path"] == path]
    assert (block["serial"], block["driver"], block["size_bytes"]) == (serial, driver, 64 * MIB)


def test_the_content_of_the_host_is_what_the_guest_reads(machine: Machine) -> None:
    path = machine.guest.resolve({"nvme_serial": "NVME1", "nsid": 1}, deadline=20)
    expected = machine.nvme.read_bytes()[3 * MIB - 5 : 4 * MIB + 7]
    digest = machine.guest.digest(path, [(3 * MIB - 5, MIB + 12)])
    assert digest == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("serial", ["VIRTIO1", "SCSI1"])
def test_what_the_guest_writes_the_host_reads(machine: Machine, serial: str) -> None:
    path = machine.guest.resolve({"serial": serial}, deadline=20)
    answer = machine.guest.call("write_pattern", device=path, offset=8192, length=MIB, seed=len(serial))
    assert answer["matches"]
    backing = {"VIRTIO1": machine.virtio, "SCSI1": machine.scsi}[serial]
    assert backing.read_bytes()[8192 : 8192 + MIB] == pattern(len(serial), MIB)


def test_persistent_memory_is_persistent_memory(machine: Machine) -> None:
    if "ndctl" not in machine.image.programs or "mkfs.ext4" not in machine.image.programs:
        pytest.skip("this host has no ndctl or mkfs.ext4 to put into the guest")
    guest = machine.guest
    (region,) = guest.inventory()["nvdimm"]["regions"]
    assert (region["provider"], region["size_bytes"]) == ("nfit", 256 * MIB)
    made = guest.call("nvdimm_create", deadline=120, namespace="namespace0.0", mode="fsdax")
    assert made["mode"] == "fsdax"
    device = guest.resolve({"nvdimm": "namespace0.0"}, deadline=20)
    mounted = guest.call("dax_mount", deadline=120, device=device, fstype="ext4", mountpoint="/mnt/pmem")
    assert mounted["dax"]
    assert mounted["formatted"]
    assert "dax=always" in mounted["options"]
    assert guest.call("map_sync", path="/mnt/pmem/sync")["works"]
    if "libpmem.so.1" in machine.image.programs:
        checked = guest.call("pmem_check", path="/mnt/pmem/file", length=MIB, write=True, seed=4)
        assert checked["is_pmem"]
        assert (checked["persisted_by"], checked["read_back"]) == ("pmem_persist", True)
    with pytest.raises(GuestFault) as caught:
        guest.call("write_pattern", device=device, offset=0, length=4096, seed=1)
    assert caught.value.errno == 16, "a mounted device is not written"
    guest.call("umount", mountpoint="/mnt/pmem")


def test_a_bad_request_harms_nothing(machine: Machine) -> None:
    with pytest.raises(GuestFault, match="unknown field"):
        machine.guest.call("digest", path="/dev/null")
    assert machine.guest.hello().is_probe_guest


def test_another_client_is_served_after_the_first_and_poweroff_ends_the_machine(machine: Machine) -> None:
    boot = machine.guest.hello().boot_id
    machine.guest.close()
    with ProbeGuest(machine.socket) as guest:
        assert guest.wait_until_up(deadline=20).boot_id == boot
        guest.call("poweroff")
        with pytest.raises(WireError):
            guest.wait_until_up(deadline=20)
    assert machine.process.wait(timeout=20) == 0
