"""What is put into the lab at every start: nvlane's own source, what it imports, the tests, and this lab's keys.

Two small disks. `site` holds the imported packages, byte-compiled by the image's own Python at full speed outside; it
changes rarely and is cached. `payload` holds the source tree and is made anew each time.
"""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from importlib import resources
from pathlib import Path

from nvlane.apply import process
from nvlane.lab import cache
from nvlane.lab.drives import GIB, MIB
from nvlane.lab.image import Image
from nvlane.model.errors import HostError

NEEDED = ("click", "rich", "markdown-it-py", "mdurl", "pygments")
FOR_TESTS = ("pytest", "pluggy", "iniconfig", "packaging")
"""Pure Python all of them, so the very same files run on the lab's Python."""

_PAYLOAD_BYTES = 4 * GIB
"""Sparse. It also holds the lab's /var/tmp, for images and backing files that are too large for the root."""
_SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def site(image: Image) -> Path:
    """A disk with the packages nvlane imports, from the cache when their versions are the same."""
    found = {name: version for name in (*NEEDED, *FOR_TESTS) if (version := _version(name))}
    if missing := [name for name in NEEDED if name not in found]:
        raise HostError(f"{', '.join(missing)} cannot be found by {importlib.metadata.__name__}")

    def make(directory: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="nvlane-") as staging:
            tree = Path(staging) / "site"
            for name in found:
                _copy_distribution(name, tree)
            _compile(image, tree, "/nvlane/site")
            _disk(directory / "site.img", tree, 128 * MIB)

    name = cache.key(image.key, *(f"{name}={version}" for name, version in sorted(found.items())))
    return cache.kept("site", name, make) / "site.img"


def payload(image: Image, target: Path, keys: Path) -> None:
    """Write the disk `target`: nvlane as it is now, its tests and pages, and `keys` (a directory)."""
    source = Path(str(resources.files("nvlane")))
    checkout = source.parent.parent
    with tempfile.TemporaryDirectory(prefix="nvlane-") as staging:
        tree = Path(staging) / "payload"
        shutil.copytree(source, tree / "src" / "nvlane", ignore=_SKIPPED)
        _compile(image, tree / "src", "/nvlane/src")
        for name in ("tests", "docs", "examples", "pyproject.toml"):
            part = checkout / name
            if part.is_dir():
                shutil.copytree(part, tree / name, ignore=_SKIPPED)
            elif part.is_file():
                shutil.copy2(part, tree / name)
        for name in ("site", "tmp"):
            (tree / name).mkdir()
        shutil.copytree(keys, tree / "keys")
        (tree / "boot.sh").write_text((resources.files("nvlane.lab") / "recipe" / "boot.sh").read_text())
        _disk(target, tree, _PAYLOAD_BYTES)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _copy_distribution(name: str, tree: Path) -> None:
    distribution = importlib.metadata.distribution(name)
    for file in distribution.files or ():
        # '..' leads to programs and manual pages: only what is imported goes along.
        if ".." in file.parts or file.suffix == ".pyc":
            continue
        if file.suffix == ".so":
            raise HostError(f"{name} is no pure Python here ({file}), so it cannot run in the lab")
        target = tree / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(str(file.locate()), target)


def _compile(image: Image, tree: Path, seen_as: str) -> None:
    """Byte-compile `tree` with the lab's Python, run outside the lab by its own dynamic linker."""
    root = cache.kept("python", image.key, lambda directory: _unpack(image, directory))
    (program,) = (root / "usr/bin").iterdir()
    process.run(
        [
            str(root / "lib64/ld-linux-x86-64.so.2"),
            "--library-path",
            str(root / "lib/x86_64-linux-gnu"),
            str(program),
            *("-S", "-m", "compileall", "-q", "-s", str(tree), "-p", seen_as, str(tree)),
        ],
        env={"PYTHONHOME": str(root / "usr"), "LD_LIBRARY_PATH": str(root / "lib/x86_64-linux-gnu")},
        timeout=300,
    )


def _unpack(image: Image, directory: Path) -> None:
    process.run(["tar", "-xf", str(image.python), "-C", str(directory)], timeout=120)


def _disk(target: Path, tree: Path, size: int) -> None:
    with target.open("wb") as file:
        file.truncate(size)
    # No journal: the disk is thrown away. root_owner: the files' owner here need not exist in the lab.
    options = ["-O", "^has_journal,^metadata_csum", "-E", "root_owner=0:0,lazy_itable_init=1", "-m", "0"]
    process.run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", str(tree), str(target)], timeout=120)
