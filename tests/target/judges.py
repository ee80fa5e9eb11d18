"""Programs that judge a SCSI disk and have nothing to do with us: sg3_utils, and the test suite of libiscsi."""

from __future__ import annotations

from pathlib import Path

from nvlane.lab import cache
from nvlane.lab.emulator import unpack
from nvlane.lab.image import SUITE

PACKAGES = ("sg3-utils", "libsgutils2-1.48", "libiscsi-bin", "libiscsi7", "libcunit1")


def judges() -> Path:
    """A directory with their `usr/bin` and `usr/lib`, for a guest of the same release."""
    name = cache.key(SUITE, *PACKAGES)
    return cache.kept("judges", name, lambda directory: unpack(directory, (SUITE,), PACKAGES, alone=True))
