"""fio as a directory that runs anywhere: made, kept, and taken into a guest. A small program stands for fio."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvlane.apply import fio_kit, process, programs
from nvlane.apply.initramfs import build_probe_guest

PROGRAM = Path("/bin/true")


@pytest.fixture
def kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    libraries = programs.libraries((PROGRAM,))
    return fio_kit.kept(["true"], lambda place: fio_kit.put_together(place, PROGRAM, libraries))


def test_it_runs_by_its_own_dynamic_linker(kit: Path) -> None:
    names = [name for name, _ in fio_kit.files(kit)]
    assert names[:2] == ["ld.so", "fio"] and "lib/libc.so.6" in names
    assert process.run([*fio_kit.words(str(kit)), "--version"]).returncode == 0
    linker, *rest = fio_kit.words(str(kit))
    loaded = process.run([linker, "--list", *rest]).stdout
    assert f"libc.so.6 => {kit}/lib/libc.so.6" in loaded


def test_it_is_made_once_and_never_by_half(kit: Path) -> None:
    def never(place: Path) -> None:
        raise AssertionError(f"{place} is made again")

    assert fio_kit.kept(["true"], never) == kit

    def fails(place: Path) -> None:
        (place / "half").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        fio_kit.kept(["another"], fails)
    assert [path for path in kit.parent.iterdir() if path != kit] == []


def test_a_damaged_one_is_replaced(kit: Path) -> None:
    (kit / "complete").unlink()
    libraries = programs.libraries((PROGRAM,))
    assert fio_kit.kept(["true"], lambda place: fio_kit.put_together(place, PROGRAM, libraries)) == kit
    assert (kit / "complete").is_file()


def test_the_probe_guest_has_it_and_the_plain_one_is_another(kit: Path, tmp_path: Path) -> None:
    modules = tmp_path / "modules" / "6.1.0-test"
    modules.mkdir(parents=True)
    for name in ("dep", "builtin", "alias", "softdep"):
        (modules / f"modules.{name}").touch()
    kernel = tmp_path / "vmlinuz"
    kernel.write_bytes(b"not a bzImage")

    def build(fio: Path | None) -> Path:
        return build_probe_guest(
            "6.1.0-test", tmp_path / "guests", modules_root=tmp_path / "modules", kernel=kernel, probe=PROGRAM,
            pmem_tools=False, fio=fio,
        ).initrd  # fmt: skip

    plain, full = build(None), build(kit)
    assert plain != full and build(kit) == full
    assert b"opt/nvlane-fio/fio\0" in full.read_bytes() and b"opt/nvlane-fio/ld.so\0" in full.read_bytes()
    assert b"nvlane-fio" not in plain.read_bytes()
