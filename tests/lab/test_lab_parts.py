"""The parts of the lab that need no virtual machine: its arguments, drives, keys, mirror, cache."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import threading
import zlib
from pathlib import Path
from uuid import UUID

import pytest
from remote_tests import SILENT_GUEST

from nvlane.cli.service.guest import in_turns
from nvlane.lab import cache, gpt, keys
from nvlane.lab.drives import DRIVES, PATTERN_BYTES, Content, Place, make_images, pattern
from nvlane.lab.machine import ROOT_PARTITION, Accelerator, LabFiles, LabMachine, arguments
from nvlane.lab.sources import Source, mirror, sources
from nvlane.model.errors import HostError
from nvlane.wire.lines import DeadlineMissed

GOLDEN = Path(__file__).parent.parent / "golden" / "lab"
FILES = LabFiles(
    disks=Path("/cache/running/lab"),
    kernel=Path("/cache/image/vmlinuz"),
    site=Path("/cache/site.img"),
    console_log=Path("/run/nvlane-lab/lab/console.log"),
)
MACHINES = {
    "tcg": LabMachine(),
    "kvm": LabMachine(accelerator=Accelerator.KVM, name="second", memory=8 << 30, cpus=4, append="debug"),
    "small": LabMachine(cpus=1, drives=DRIVES[:1]),
}


@pytest.mark.parametrize("name", MACHINES)
def test_arguments(name: str) -> None:
    words = arguments(MACHINES[name], FILES)
    text = "".join(f"{word}\n" for word in words)
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("NVLANE_REGENERATE"):
        golden.write_text(text)
    assert text == golden.read_text()


def test_arguments_are_pure() -> None:
    assert arguments(LabMachine(), FILES) == arguments(LabMachine(), FILES)


def test_what_the_lab_promises_of_its_drives() -> None:
    serials = [drive.serial for drive in DRIVES]
    assert len(set(serials)) == len(serials)
    assert [drive.serial for drive in DRIVES if drive.place is Place.SIBLINGS] == ["LABSIBA", "LABSIBB"]
    assert [drive.serial for drive in DRIVES if drive.virtual_functions] == ["LABVF"]
    assert {len(drive.namespaces) for drive in DRIVES} == {1, 2}
    assert {drive.node for drive in DRIVES} == {0, 1}


@pytest.mark.parametrize("drive", DRIVES, ids=lambda drive: drive.serial)
def test_content_is_known_and_sparse(drive, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make_images(drive, tmp_path)
    for nsid, namespace in enumerate(drive.namespaces, start=1):
        image = tmp_path / drive.image(nsid)
        assert image.stat().st_size == namespace.size
        assert image.stat().st_blocks * 512 < 64 << 20
        with image.open("rb") as file:
            if namespace.content is Content.PATTERN:
                assert file.read(PATTERN_BYTES) == pattern(drive.serial, nsid)
                file.seek(-PATTERN_BYTES, os.SEEK_END)
                assert file.read() == pattern(drive.serial, nsid)
            else:
                inside = subprocess.run(["debugfs", "-R", "cat pattern.bin", image], capture_output=True, check=True)
                assert inside.stdout == pattern(drive.serial, nsid)


def test_patterns_differ() -> None:
    patterns = {pattern(drive.serial, nsid) for drive in DRIVES for nsid in range(1, len(drive.namespaces) + 1)}
    assert len(patterns) == sum(len(drive.namespaces) for drive in DRIVES)


def test_partition_table(tmp_path: Path) -> None:
    """Both headers are checked as the kernel checks them (block/partitions/efi.c): signature, checksums, own place."""
    image = tmp_path / "disk"
    size = gpt.FIRST_BYTE + (8 << 20) + gpt.TAIL_BYTES
    image.write_bytes(b"")
    os.truncate(image, size)
    gpt.write_table(image, disk=UUID(int=7), partition=ROOT_PARTITION)
    data = image.read_bytes()
    assert len(data) == size
    assert data[510:512] == b"\x55\xaa"
    assert data[450] == 0xEE
    for block in (1, size // 512 - 1):
        header = data[block * 512 : block * 512 + 92]
        assert header[:8] == b"EFI PART"
        (crc,) = struct.unpack_from("<I", header, 16)
        assert zlib.crc32(header[:16] + bytes(4) + header[20:]) == crc
        own, other, first, last = struct.unpack_from("<QQQQ", header, 24)
        assert (own, other) == (block, size // 512 - block)
        table, count, entry, table_crc = struct.unpack_from("<QIII", header, 72)
        entries = data[table * 512 : table * 512 + count * entry]
        assert zlib.crc32(entries) == table_crc
        assert entries[16:32] == ROOT_PARTITION.bytes_le
        start, end = struct.unpack_from("<QQ", entries, 32)
        assert first <= start <= end <= last
        assert (start * 512, (end + 1) * 512) == (gpt.FIRST_BYTE, size - gpt.TAIL_BYTES)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_host_key_in_dropbears_form(tmp_path: Path) -> None:
    """The public half, which ssh-keygen wrote by itself, stands at the end of what dropbear gets."""
    import base64

    public = keys.make_pair(tmp_path / "key", "a comment")
    blob = base64.b64decode(public.split()[1])
    key = keys.dropbear_form(tmp_path / "key")
    assert key.startswith(struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 64))
    assert len(key) == 4 + 11 + 4 + 64
    assert key[-32:] == blob[-32:]


DEB822 = """# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# in between
Suites: trixie
 trixie-updates
Components: main
Signed-By: /usr/share/keyrings/some.gpg

Types: deb
URIs: http://off.example/debian
Suites: trixie
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
"""


def test_mirror_from_deb822(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d" / "debian.sources.disabled").write_text(DEB822.replace("mirror", "disabled"))
    assert list(sources(tmp_path)) == [
        Source(
            uri="http://mirror.example/debian",
            suites=("trixie", "trixie-updates"),
            signed_by="/usr/share/keyrings/some.gpg",
        )
    ]
    assert mirror(tmp_path).uri == "http://mirror.example/debian"


def test_mirror_from_one_line_style(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "# deb http://comment.example/debian bookworm main\n"
        "deb-src http://source.example/debian bookworm main\n"
        "deb [arch=amd64] http://other.example/apt nodistro main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://security.example/debian-security bookworm-security main\n"
        "deb [signed-by=/k.gpg] http://mirror.example/debian bookworm main contrib\n"
    )
    assert mirror(tmp_path) == Source(uri="http://mirror.example/debian", suites=("bookworm",), signed_by="/k.gpg")


def test_no_mirror_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HostError, match="NVLANE_DEBIAN_MIRROR"):
        mirror(tmp_path)
    monkeypatch.setenv("NVLANE_DEBIAN_MIRROR", "http://chosen.example/debian")
    assert mirror(tmp_path).uri == "http://chosen.example/debian"


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "nvlane" / "lab"


def _write(text: str):  # type: ignore[no-untyped-def]
    def make(directory: Path) -> None:
        (directory / "file").write_text(text)

    return make


def test_cache_makes_once(caches: Path) -> None:
    assert cache.kept("kind", "name", _write("one")) == caches / "kind" / "name"
    assert (cache.kept("kind", "name", _write("two")) / "file").read_text() == "one"


@pytest.mark.parametrize("damage", ["cut", "missing", "added", "unmarked"])
@pytest.mark.usefixtures("caches")
def test_cache_repairs_itself(damage: str) -> None:
    directory = cache.kept("kind", "name", _write("one"))
    match damage:
        case "cut":
            (directory / "file").write_text("o")
        case "missing":
            (directory / "file").unlink()
        case "added":
            (directory / "stray").write_text("?")
        case "unmarked":
            (directory / ".complete").unlink()
    again = cache.kept("kind", "name", _write("two"))
    assert (again / "file").read_text() == "two"
    assert sorted(file.name for file in again.iterdir()) == [".complete", "file"]


def test_cache_keeps_nothing_of_a_failure(caches: Path) -> None:
    def fails(directory: Path) -> None:
        (directory / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.kept("kind", "name", fails)
    assert [file.name for file in (caches / "kind").iterdir()] == [".lock"]


@pytest.mark.usefixtures("caches")
def test_cache_has_one_builder_at_a_time() -> None:
    started, go = threading.Event(), threading.Event()
    made: list[str] = []

    def slow(directory: Path) -> None:
        made.append("slow")
        started.set()
        assert go.wait(10)
        (directory / "file").write_text("slow")

    def quick(directory: Path) -> None:
        made.append("quick")
        (directory / "file").write_text("quick")

    first = threading.Thread(target=cache.kept, args=("kind", "name", slow))
    second = threading.Thread(target=cache.kept, args=("kind", "name", quick))
    first.start()
    assert started.wait(10)
    second.start()
    go.set()
    first.join(10)
    second.join(10)
    assert made == ["slow"]


def test_cache_forgets_the_oldest(caches: Path) -> None:
    for number in range(5):
        os.utime(cache.kept("kind", str(number), _write("x")), (number, number))
    assert sorted(entry.name for entry in (caches / "kind").iterdir()) == [".lock", "2", "3", "4"]


def test_keys_of_the_cache_are_of_content() -> None:
    assert cache.key("a", "b") == cache.key("a", b"b")
    assert cache.key("ab") != cache.key("a", "b") != cache.key("b", "a")


def test_a_guest_that_falls_silent_is_known_by_what_nvlane_says_of_it() -> None:
    """However a guest is reached: of an emulated lab such a test is done once more."""
    with pytest.raises(DeadlineMissed) as said:
        in_turns("vm", [lambda _: None], 0.01, "its console tells")
    assert SILENT_GUEST.search(str(said.value))
