"""The probe guest: a kernel of this host with an initramfs that holds nvlane-probe and little else.

It boots in a few seconds even where processors are emulated, has a driver for every front end that nvlane can give a
machine, and tells over its probe port what it sees. The image is kept in the cache under a key made of everything
that went into it; building it anew takes about a second.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nvlane.apply import cpio, fio_kit, kernel_image, kernel_modules, programs
from nvlane.model.errors import HostError

FORMAT = 2
"""Raise it when the builder puts other things into the image: old images are then not found any more."""

MODULES = (
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "virtio_scsi",
    "sd_mod",
    "nvme",
    "ahci",
    "ata_piix",
    "xhci_pci",
    "usb_storage",
    "uas",
    "nfit",
    "virtio_pmem",
    "nd_pmem",
    "nd_btt",
    "dax_pmem",
    "device_dax",
    "ext4",
    "xfs",
)
CIPHERS = ("crc32c_generic", "crc32c_intel", "crct10dif_generic", "crct10dif_pclmul", "crc_t10dif")
"""What file systems and protection information ask for by name; where they are built in, nothing is taken."""

PROGRAMS = ("ndctl", "daxctl", "mkfs.ext4", "mkfs.xfs")
LIBPMEM = "libpmem.so.1"
SETTINGS = ("/etc/mke2fs.conf",)

CMDLINE = (
    "console=ttyS0",
    "quiet",
    "panic=-1",  # with QEMU's -no-reboot a dead guest ends its QEMU at once
    "mitigations=off",  # the guest runs nothing but the probe
    "nokaslr",  # no relocation of the kernel at boot
    "no_timer_check",  # under emulation the timer check fails now and then
    "tsc=reliable",
    "random.trust_cpu=on",
    "cryptomgr.notests",
    "rcupdate.rcu_expedited=1",
    "i8042.noaux",
    "i8042.nokbd",
    "ipv6.disable=1",
    "audit=0",
    "lsm=",
    # Key rings, certificates, random-bit health tests and trace names: none is used, and together they take a
    # quarter of the boot where processors are emulated. Names that a kernel does not know do no harm.
    "initcall_blacklist=init_encrypted,jent_mod_init,crypto_kdf108_init,trace_eval_init,load_system_certificate_list",
)
"""Kernel parameters with which the probe guest boots fastest; measured under TCG, harmless under KVM."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeGuestImage:
    """A bootable probe guest: what QEMU's -kernel, -initrd and -append take."""

    kernel: Path
    """The uncompressed kernel where that starts directly, else the installed one."""
    initrd: Path
    release: str
    programs: tuple[str, ...]
    """What the image has of `PROGRAMS` and libpmem; without them some pmem claims cannot be tried."""
    missing_modules: tuple[str, ...]
    """Of `MODULES`: those that this kernel lacks, so their front ends cannot be seen by this guest."""

    @property
    def cmdline(self) -> str:
        """The kernel's parameters."""
        return " ".join(CMDLINE)


def cache_directory() -> Path:
    """Where images are kept: `$XDG_CACHE_HOME/nvlane/guest`, or `~/.cache/nvlane/guest`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "nvlane", "guest")


def packaged_probe() -> Path:
    """The probe that was built with this nvlane. Raises HostError when there is none."""
    probe = Path(__file__).resolve().parent.parent / "_bin" / "nvlane-probe"
    if not probe.is_file():
        raise HostError(
            f"{probe} is missing: nvlane's in-guest probe has not been built",
            remedy="run make in nvlane's checkout, or cargo build --release and copy target/release/nvlane-probe there",
        )
    return probe


def build_probe_guest(
    kernel_release: str,
    out_dir: Path | None = None,
    *,
    modules_root: Path = Path("/lib/modules"),
    kernel: Path | None = None,
    probe: Path | None = None,
    pmem_tools: bool = True,
    fio: Path | None = None,
) -> ProbeGuestImage:
    """The probe guest for an installed kernel, from the cache or new.

    `out_dir` is the cache (default: `cache_directory()`), `kernel` the kernel's file (default:
    `/boot/vmlinuz-RELEASE`). `pmem_tools=False` leaves out ndctl, mkfs and libpmem, two thirds of the image; `fio` is
    a kit (`apply.fio_kit`) to take along.
    Raises HostError when the kernel, its modules or the probe are missing.
    """
    kernel = kernel or Path("/boot", f"vmlinuz-{kernel_release}")
    if not kernel.is_file():
        raise HostError(
            f"there is no kernel {kernel}",
            remedy="install a kernel package (Debian: linux-image-cloud-amd64), or name another kernel",
        )
    probe = probe or packaged_probe()
    tools = _tools(pmem_tools)
    cache = out_dir or cache_directory()
    place = cache / _key(kernel, modules_root / kernel_release, probe, tools, fio)
    kept = _kept(place, kernel)
    if kept is not None:
        return kept
    modules = kernel_modules.read(modules_root, kernel_release)
    cache.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=cache))
    try:
        _build(scratch, kernel, kernel_release, modules, probe, tools, fio)
        return _publish(scratch, place, kernel)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _build(
    scratch: Path,
    kernel: Path,
    release: str,
    modules: kernel_modules.KernelModules,
    probe: Path,
    tools: dict[str, Path],
    fio: Path | None,
) -> None:
    """Fill a directory: initrd, vmlinux where that starts directly, and image.json with what is in them."""
    with (scratch / "initrd").open("wb") as stream:
        cpio.write(stream, [*_entries(modules, release, probe, tools), *_fio_entries(fio)])
    plain = kernel_image.uncompressed(kernel.read_bytes())
    if plain is not None:
        (scratch / "vmlinux").write_bytes(plain)
    record = {
        "release": release,
        "programs": sorted(tools),
        "missing_modules": modules.missing(MODULES),
        "bytes": {file.name: file.stat().st_size for file in scratch.iterdir()},
    }
    (scratch / "image.json").write_text(json.dumps(record), encoding="utf-8")


def _tools(wanted: bool) -> dict[str, Path]:
    """The optional programs that this host has, by name; libpmem is one of them here."""
    if not wanted:
        return {}
    found = {name: programs.find_program(name) for name in PROGRAMS}
    found[LIBPMEM] = programs.find_library(LIBPMEM)
    return {name: path for name, path in sorted(found.items()) if path is not None}


def _key(kernel: Path, modules: Path, probe: Path, tools: dict[str, Path], fio: Path | None) -> str:
    """The probe, which changes with every build, counts by its content; packages' files by size and time."""
    hasher = hashlib.sha256(f"{FORMAT} {MODULES} {CIPHERS}".encode())
    hasher.update(probe.read_bytes())
    hasher.update(fio.name.encode() if fio is not None else b"")  # a kit's directory is called by its content
    for path in (kernel, modules / "modules.dep", *tools.values()):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        hasher.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return hasher.hexdigest()[:24]


def _kept(place: Path, kernel: Path) -> ProbeGuestImage | None:
    """The image in a place of the cache, if it is whole: a full disk or a lost power supply can leave less."""
    try:
        record = json.loads((place / "image.json").read_text(encoding="utf-8"))
        sizes = dict(record["bytes"])
        if "initrd" not in sizes or any((place / name).stat().st_size != size for name, size in sizes.items()):
            return None
        return ProbeGuestImage(
            kernel=place / "vmlinux" if "vmlinux" in sizes else kernel,
            initrd=place / "initrd",
            release=record["release"],
            programs=tuple(record["programs"]),
            missing_modules=tuple(record["missing_modules"]),
        )
    except (FileNotFoundError, KeyError, TypeError, ValueError):
        return None


def _publish(scratch: Path, place: Path, kernel: Path) -> ProbeGuestImage:
    """Move a finished image into its place, unless another nvlane was quicker; what is damaged there goes away."""
    try:
        scratch.rename(place)
    except OSError:
        if (quicker := _kept(place, kernel)) is not None:
            return quicker
        shutil.rmtree(place)
        scratch.rename(place)
    if (image := _kept(place, kernel)) is None:
        raise HostError(f"the probe guest in {place} vanished while it was built", remedy="try again")
    return image


def _entries(
    modules: kernel_modules.KernelModules, release: str, probe: Path, tools: dict[str, Path]
) -> Iterator[cpio.Entry]:
    yield cpio.character_device("/dev/console", 5, 1)
    yield cpio.file("/init", probe.read_bytes(), mode=0o755)
    yield cpio.symlink("/sbin/modprobe", "/init")
    yield from _module_entries(modules, f"/lib/modules/{release}")
    for name, path in tools.items():
        # mke2fs decides by the name it is called by what it makes, so links become files of their own name.
        place = str(path) if name == LIBPMEM else f"/usr/sbin/{name}"
        yield cpio.file(place, path.read_bytes(), mode=0o755)
    for path in programs.libraries((probe, *tools.values())):
        yield cpio.file(str(path), path.read_bytes(), mode=0o755)
    if tools:
        yield from (cpio.file(path, Path(path).read_bytes()) for path in SETTINGS if Path(path).is_file())
        yield cpio.symlink("/etc/mtab", "/proc/self/mounts")


def _fio_entries(kit: Path | None) -> Iterator[cpio.Entry]:
    for name, path in fio_kit.files(kit) if kit is not None else ():
        yield cpio.file(f"{fio_kit.PLACE}/{name}", path.read_bytes(), mode=0o755)


def _module_entries(modules: kernel_modules.KernelModules, directory: str) -> Iterator[cpio.Entry]:
    """The modules, decompressed and flat, with the tables that the probe's modprobe reads."""
    chosen = modules.closure((*MODULES, *CIPHERS))
    for files in chosen.values():
        plain = kernel_modules.content(modules.directory / files[0])
        yield cpio.file(f"{directory}/{kernel_modules.module_name(files[0])}.ko", plain)

    def flat(path: str) -> str:
        return kernel_modules.module_name(path) + ".ko"

    dependencies = [f"{flat(own)}: {' '.join(map(flat, needs))}" for own, *needs in chosen.values()]
    aliases = [f"alias {pattern} {name}" for pattern, name in modules.aliases if name.replace("-", "_") in chosen]
    soft = [line for line in modules.soft_dependencies if line.split()[1].replace("-", "_") in chosen]
    for table, lines in (("modules.dep", dependencies), ("modules.alias", aliases), ("modules.softdep", soft)):
        yield cpio.file(f"{directory}/{table}", "".join(f"{line}\n" for line in lines).encode())
