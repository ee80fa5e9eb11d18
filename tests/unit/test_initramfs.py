"""The probe guest's image: the archive, the modules, the libraries, the kernel, and the cache."""

from __future__ import annotations

import dataclasses
import gzip
import io
import lzma
import stat
import struct
import subprocess
import zlib
from pathlib import Path

import pytest

from nvlane.apply import cpio, initramfs, kernel_image, kernel_modules, programs, zstd
from nvlane.model.errors import HostError

RELEASE = "6.1.0-test"


def unpack(archive: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a cpio archive as the kernel does (init/initramfs.c): name -> mode, content."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[at + 110 : at + 110 + name_size - 1].decode()
        start = at + 110 + name_size + (-(110 + name_size) % 4)
        if name == "TRAILER!!!":
            return found
        parent = name.rpartition("/")[0]
        assert not parent or stat.S_ISDIR(found[parent][0]), f"{name} comes before its directory"
        found[name] = (mode, archive[start : start + size])
        at = start + size + (-size % 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """A kernel with three modules, a probe, and a cache."""

    root: Path
    probe: Path
    kernel: Path
    cache: Path

    def build(self, *, pmem_tools: bool = False) -> initramfs.ProbeGuestImage:
        return initramfs.build_probe_guest(
            RELEASE, self.cache, modules_root=self.root, kernel=self.kernel, probe=self.probe, pmem_tools=pmem_tools
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    modules = tmp_path / "modules" / RELEASE
    modules.mkdir(parents=True)
    (modules / "libnvdimm.ko.xz").write_bytes(lzma.compress(b"libnvdimm's code"))
    (modules / "nd_btt.ko.gz").write_bytes(gzip.compress(b"nd_btt's code"))
    (modules / "nd_pmem.ko").write_bytes(b"nd_pmem's code")
    (modules / "floppy.ko").write_bytes(b"not wanted")
    (modules / "modules.dep").write_text(
        "nd_pmem.ko: nd_btt.ko.gz libnvdimm.ko.xz\nnd_btt.ko.gz: libnvdimm.ko.xz\nlibnvdimm.ko.xz:\nfloppy.ko:\n"
    )
    (modules / "modules.builtin").write_text("kernel/drivers/nvme/host/nvme.ko\n")
    (modules / "modules.alias").write_text("# kmod\nalias nd:t4* nd_pmem\nalias block-major-2-* floppy\n")
    (modules / "modules.softdep").write_text("softdep nd_pmem pre: floppy\nsoftdep floppy pre: x\n")
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"not a bzImage")
    probe = tmp_path / "probe"
    probe.write_bytes(Path("/bin/true").read_bytes())
    probe.chmod(0o755)
    return Host(root=tmp_path / "modules", probe=probe, kernel=kernel, cache=tmp_path / "cache")


def test_an_archive_is_read_back_with_parents_links_and_nodes() -> None:
    stream = io.BytesIO()
    cpio.write(
        stream,
        [
            cpio.file("/usr/bin/x", b"abc", mode=0o755),
            cpio.symlink("/sbin/y", "/usr/bin/x"),
            cpio.character_device("/dev/console", 5, 1),
            cpio.file("/empty", b""),
        ],
    )
    found = unpack(stream.getvalue())
    assert found["usr/bin/x"] == (stat.S_IFREG | 0o755, b"abc")
    assert found["sbin/y"] == (stat.S_IFLNK | 0o777, b"/usr/bin/x")
    assert stat.S_ISCHR(found["dev/console"][0])
    assert found["empty"][1] == b""
    assert stat.S_ISDIR(found["usr"][0])
    assert len(stream.getvalue()) % 4 == 0


def test_an_archive_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="twice"):
        cpio.write(io.BytesIO(), [cpio.file("/a", b""), cpio.file("/a", b"")])
    with pytest.raises(ValueError, match="not absolute"):
        cpio.write(io.BytesIO(), [cpio.file("a", b"")])


def test_the_image_holds_the_probe_its_libraries_and_the_modules(host: Host) -> None:
    image = host.build()
    found = unpack(image.initrd.read_bytes())
    assert found["init"] == (stat.S_IFREG | 0o755, Path("/bin/true").read_bytes())
    assert found["sbin/modprobe"][1] == b"/init"
    assert any(name.endswith("/libc.so.6") for name in found)
    assert any("/ld-linux" in name for name in found)
    at = f"lib/modules/{RELEASE}"
    assert found[f"{at}/libnvdimm.ko"][1] == b"libnvdimm's code"
    assert found[f"{at}/nd_btt.ko"][1] == b"nd_btt's code"
    assert f"{at}/floppy.ko" not in found
    assert "nd_pmem.ko: nd_btt.ko libnvdimm.ko\n" in found[f"{at}/modules.dep"][1].decode()
    assert found[f"{at}/modules.alias"][1] == b"alias nd:t4* nd_pmem\n"
    assert found[f"{at}/modules.softdep"][1] == b"softdep nd_pmem pre: floppy\n"


def test_what_the_kernel_lacks_is_recorded_and_what_is_built_in_is_not(host: Host) -> None:
    image = host.build()
    assert "usb_storage" in image.missing_modules
    assert "nvme" not in image.missing_modules
    assert "nd_pmem" not in image.missing_modules
    assert image.programs == ()


def test_optional_programs_are_taken_if_this_host_has_them(host: Host) -> None:
    image = host.build(pmem_tools=True)
    found = unpack(image.initrd.read_bytes())
    for name in ("mkfs.ext4", "ndctl", "mkfs.xfs"):
        assert (f"usr/sbin/{name}" in found) == (name in image.programs) == (programs.find_program(name) is not None)


def test_the_cache_is_used_and_is_sensitive_to_the_probe(host: Host) -> None:
    first = host.build()
    before = first.initrd.stat()
    assert host.build().initrd.stat().st_mtime_ns == before.st_mtime_ns
    with host.probe.open("ab") as stream:
        stream.write(b"a newer build")
    assert host.build().initrd != first.initrd
    assert not list(host.cache.glob(".building-*"))


@pytest.mark.parametrize("damage", ["{", "[]", "{}"])
def test_a_damaged_cache_is_built_anew(host: Host, damage: str) -> None:
    image = host.build()
    (image.initrd.parent / "image.json").write_text(damage)
    assert host.build() == image


def test_a_cache_without_its_archive_is_built_anew(host: Host) -> None:
    image = host.build()
    image.initrd.unlink()
    assert unpack(host.build().initrd.read_bytes())
    with image.initrd.open("ab") as stream:
        stream.truncate(100)
    assert unpack(host.build().initrd.read_bytes())


def test_the_same_inputs_give_the_same_bytes(host: Host, tmp_path: Path) -> None:
    one = host.build().initrd.read_bytes()
    assert dataclasses.replace(host, cache=tmp_path / "other").build().initrd.read_bytes() == one


def test_missing_things_are_named_with_a_remedy(host: Host, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no kernel") as caught:
        dataclasses.replace(host, kernel=tmp_path / "none").build()
    assert "install" in caught.value.remedy
    with pytest.raises(HostError, match=r"modules\.dep"):
        dataclasses.replace(host, root=tmp_path).build()
    assert not list(host.cache.glob(".building-*"))


def test_libraries_of_a_program_are_found() -> None:
    names = {path.name for path in programs.libraries([Path("/bin/sh")])}
    assert "libc.so.6" in names
    assert any(name.startswith("ld-linux") for name in names)


def test_zstd_data_is_unpacked_and_damage_is_said(tmp_path: Path) -> None:
    packer = programs.find_program("zstd")
    if packer is None:
        pytest.skip("no zstd program to pack with")
    content = b"module" * 10000
    packed = subprocess.run([packer, "-q", "-c"], input=content, capture_output=True, check=True).stdout
    assert zstd.decompress(packed, len(content)) == content
    (tmp_path / "x.ko.zst").write_bytes(packed)
    assert kernel_modules.content(tmp_path / "x.ko.zst") == content
    with pytest.raises(HostError, match="cannot be unpacked"):
        zstd.decompress(packed[:-9], len(content))
    with pytest.raises(HostError, match="cannot be unpacked"):
        zstd.decompress(packed, len(content) - 1)


def test_modules_in_an_unknown_form_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.ko.lz4").write_bytes(b"x")
    with pytest.raises(HostError, match=r"\.lz4"):
        kernel_modules.content(tmp_path / "x.ko.lz4")


def elf(note_name: bytes = b"Xen\0", note_type: int = 18) -> bytes:
    """A 64-bit ELF file of one note segment, behind a note that is nobody's business."""
    other = struct.pack("<III", 4, 3, 1) + b"GNU\0" + b"abc\0"
    note = struct.pack("<III", len(note_name), 8, note_type) + note_name + b"\0" * 8
    header = struct.pack("<4sBBBB8xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(other + note), len(other + note), 4)
    return header + segment + other + note


def bzimage(payload: bytes) -> bytes:
    """A boot sector and four setup sectors, then the payload at 16 bytes into the protected-mode code."""
    setup = bytearray(5 * 512)
    setup[0x1F1] = 4
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + b"\0" * 16 + payload


def size(content: bytes) -> bytes:
    return struct.pack("<I", len(content))


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(elf()), lzma.compress(elf()), zlib.compress(elf(), wbits=31)],
    ids=["gzip", "xz", "zlib"],
)
def test_a_kernel_with_a_pvh_entry_is_taken_out_of_its_bzimage(packed: bytes) -> None:
    assert kernel_image.uncompressed(bzimage(packed + size(elf()))) == elf()


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ" + b"\0" * 5000,
        bzimage(gzip.compress(elf())[:-20] + size(elf()))[:-5],
        bzimage(b"\x1f\x8b" + b"garbage" * 10),
        bzimage(b"\x02\x21\x4c\x18 lz4, which nobody here unpacks"),
        bzimage(gzip.compress(b"not an ELF file") + size(b"not an ELF file")),
        bzimage(gzip.compress(elf(note_type=17)) + size(elf())),
        bzimage(gzip.compress(elf(note_name=b"Ken\0")) + size(elf())),
    ],
)
def test_any_other_kernel_is_left_as_it_is(image: bytes) -> None:
    assert kernel_image.uncompressed(image) is None


def test_the_direct_kernel_goes_with_the_image(host: Host) -> None:
    host.kernel.write_bytes(bzimage(gzip.compress(elf()) + size(elf())))
    image = host.build()
    assert image.kernel.read_bytes() == elf()
    assert image.kernel.parent == image.initrd.parent
    assert host.build().kernel == image.kernel
