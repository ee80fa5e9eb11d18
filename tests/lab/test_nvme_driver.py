"""Our own NVMe driver on the lab's drives: VFIO, an IOMMU, interrupts, resets and a hand that pulls.

`crates/nvme/examples/drive.rs` is the driver with a command line. What it writes is read by the kernel's driver
afterwards, and the other way round.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvlane.apply import process
from nvlane.lab import Lab

pytestmark = pytest.mark.lab

ROOT = Path(__file__).parents[2]
PROGRAM = "/root/nvme-drive"
MIB = 1 << 20
PLACE = 600 * MIB  # on both drives nothing is there: LABDRIVE1's ext4 keeps its tables in its first megabytes
BINDER = """
import pathlib, sys, time
serial, driver = sys.argv[1:]
pci = pathlib.Path("/sys/bus/pci")
found = [c for c in pathlib.Path("/sys/class/nvme").iterdir() if (c / "serial").read_text().strip() == serial]
address = (found[0] / "device").resolve().name if found else pathlib.Path(f"/run/lab/{serial}").read_text()
device = pci / "devices" / address
(device / "driver_override").write_text("vfio-pci" if driver == "vfio-pci" else "\\n")
(device / "driver/unbind").write_text(address)
(pci / "drivers_probe").write_text(address)
pathlib.Path(f"/run/lab/{serial}").write_text(address)
deadline = time.monotonic() + 20
while driver == "nvme" and not list(device.glob("nvme/nvme*/nvme*n1")):
    assert time.monotonic() < deadline, "the kernel's driver has no namespace"
    time.sleep(0.05)
print(address)
"""
# Each 16 bytes are the seed and their number (crates/nvme/examples/drive/pattern.rs).
KERNEL = """
import os, pathlib, sys
verb, serial, nsid, start, count, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
heads = [h for c in pathlib.Path("/sys/class/nvme").iterdir() if (c / "serial").read_text().strip() == serial
         for h in pathlib.Path("/sys/block").glob("nvme*n*")
         if (c.resolve() in h.resolve().parents or (h.resolve().parent / c.name).exists())
         and int((h / "nsid").read_text()) == nsid and pathlib.Path("/dev", h.name).exists()]
wanted = b"".join(b"%04x%012x" % (seed, n) for n in range(start // 16, (start + count) // 16))
with open(f"/dev/{heads[0].name}", "r+b", buffering=0) as node:
    if verb == "write":
        node.seek(start)
        node.write(wanted)
        os.fsync(node)
    else:
        node.seek(start)
        assert node.read(count) == (wanted if verb == "check" else bytes(count)), (verb, start)
"""


@pytest.fixture
def drive(room: Lab) -> Lab:
    """The lab, with the program and VFIO in it. It is built as `cargo test` builds it."""
    process.run(
        ["cargo", "build", "--quiet", "--locked", "-p", "nvlane-nvme", "--example", "drive"], cwd=ROOT, timeout=900
    )
    room.put((ROOT / "target/debug/examples/drive").read_bytes(), PROGRAM, mode=0o755)
    room.run(["modprobe", "-a", "vfio-pci", "vfio_iommu_type1"])
    return room


@contextmanager
def on_vfio(room: Lab, serial: str) -> Iterator[str]:
    yield room.run(["python3", "-c", BINDER, serial, "vfio-pci"]).stdout.strip()
    room.run(["python3", "-c", BINDER, serial, "nvme"])


def kernel(room: Lab, verb: str, serial: str, nsid: int, start: int, seed: int = 0) -> None:
    room.run(["python3", "-c", KERNEL, verb, serial, str(nsid), str(start), str(MIB), str(seed)])


def run(room: Lab, address: str, *words: str) -> list[str]:
    """Every word is done, and the drive is let go."""
    lines = room.run([PROGRAM, address, *words], timeout=120).stdout.splitlines()
    assert [line.removeprefix("done ") for line in lines if line.startswith("done ")] == list(words)
    assert lines[-1] == "detached"
    return lines


@pytest.mark.parametrize(("serial", "block", "nsid"), [("LABDRIVE1", 512, 1), ("LABDRIVE2", 4096, 2)])
def test_the_kernel_reads_what_the_driver_wrote(drive: Lab, serial: str, block: int, nsid: int) -> None:
    place = PLACE if nsid == 1 else PLACE // 4
    kernel(drive, "write", serial, nsid, place + 3 * MIB, 5)
    with on_vfio(drive, serial) as address:
        lines = run(
            drive,
            address,
            "identify",
            f"fill:{nsid}:{place}:{MIB}:3",
            f"odd:{nsid}:{place + MIB}:{MIB}:4",
            f"fill:{nsid}:{place + 2 * MIB}:{MIB}:6",
            f"check:{nsid}:{place + MIB}:{MIB}:4",
            f"check:{nsid}:{place + 3 * MIB}:{MIB}:5",
            f"zero:{nsid}:{place + 2 * MIB}:{MIB}",
            f"trim:{nsid}:{place + 3 * MIB}:{MIB}",
            f"flush:{nsid}",
            f"sleep:{nsid}",
        )
        assert f'serial "{serial}"' in lines[0]
        assert any(line.startswith(f"namespace {nsid} ") and line.endswith(f" of {block}") for line in lines)
        slept = next(line for line in lines if line.startswith("slept "))
        assert int(slept.split()[1]) > 0, "an interrupt ended a sleep"
    kernel(drive, "check", serial, nsid, place, 3)
    kernel(drive, "check", serial, nsid, place + MIB, 4)
    kernel(drive, "zero", serial, nsid, place + 2 * MIB)


def test_resets_under_load_lose_no_request(drive: Lab) -> None:
    with on_vfio(drive, "LABDRIVE2") as address:
        lines = run(drive, address, f"fill:1:0:{MIB}:9", "reset", "flr", "reset", f"check:1:0:{MIB}:9")
        assert sum(line.startswith("event Reset") for line in lines) == 3


def test_a_drive_that_is_pulled_is_let_go(drive: Lab) -> None:
    """QEMU's unplug asks the guest, pciehp unbinds, and vfio-pci waits until we have closed the device."""
    address = drive.run(["python3", "-c", BINDER, "LABDRIVE1", "vfio-pci"]).stdout.strip()
    words = drive.stream([PROGRAM, address, "removal"], patience=120)
    assert "ready\n" in {f"{line.strip()}\n" for line in _until(words, "ready")}
    begun = time.monotonic()
    drive.pull("LABDRIVE1")
    lines = [line.strip() for line in words]
    assert "requests fail" in lines
    assert "event Gone" in lines
    assert lines[-1] == "detached"
    assert time.monotonic() - begun < 30
    drive.insert("LABDRIVE1")
    drive.run(["sh", "-c", "until grep -q LABDRIVE1 /sys/class/nvme/*/serial; do sleep 0.1; done"], timeout=30)


def _until(lines: Iterator[str], word: str) -> Iterator[str]:
    for line in lines:
        yield line
        if line.strip() == word:
            return


def test_what_is_wrong_is_said(drive: Lab) -> None:
    """A drive of the kernel's, one whose group others are in, one that is not there."""
    refused = drive.run([PROGRAM, "ffff:00:00.0", "identify"], check=False)
    assert refused.returncode == 1
    assert "there is no PCI function at ffff:00:00.0" in refused.stderr
    with on_vfio(drive, "LABSIBA") as address:
        refused = drive.run([PROGRAM, address, "identify"], check=False)
        assert refused.returncode == 1
        assert "is not viable" in refused.stderr
        assert "(nvme)" in refused.stderr
    refused = drive.run([PROGRAM, address, "identify"], check=False)
    assert "belongs to the driver nvme, not to vfio-pci" in refused.stderr
    with on_vfio(drive, "LABDRIVE1") as address:
        limited = drive.run(
            [
                "sh",
                "-c",
                f"ulimit -l 4; setpriv --inh-caps -ipc_lock --bounding-set -ipc_lock {PROGRAM} {address} identify",
            ],
            check=False,
        )
        assert limited.returncode == 1
        assert "limit of locked memory is 4 KiB" in limited.stderr
