"""Fixtures of the tests that run inside the lab."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from spare import SAVED, Spare, drives


@pytest.fixture
def spare() -> Iterator[Spare]:
    """The drive, unused; what the test wrote at its ends is put back."""
    drive = drives("LABSPARE")["LABSPARE"]
    node = f"/dev/{drive.namespaces[0].name}"
    assert drive.uses == ()
    size = drive.namespaces[0].size
    with Path(node).open("rb") as device:
        front = device.read(SAVED)
        device.seek(size - SAVED)
        back = device.read(SAVED)
    try:
        with ExitStack() as later:
            yield Spare(drive=drive, later=later)
    finally:
        again = drives("LABSPARE")["LABSPARE"]
        with Path(f"/dev/{again.namespaces[0].name}").open("r+b") as device:
            device.write(front)
            device.seek(size - SAVED)
            device.write(back)
    assert again.uses == ()
