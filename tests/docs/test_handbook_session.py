"""The comparison of a page with a run sees what matters, and passes over what differs by nature."""

from __future__ import annotations

from pathlib import Path

import pytest
from handbook_pages import DOCS, handbook
from page_session import play, same, session


@pytest.mark.parametrize(
    ("page", "printed", "alike"),
    [
        ("db1 is up after 9.1 s. Next:", "db1 is up after 57.2 s. Next:", True),
        ("nvme4n1 holds ext4", "nvme2n1 holds ext4", True),
        ("nvme4n1 holds ext4", "nvme4n1 holds xfs", False),
        ("LABDRIVE1  QEMU NVMe Ctrl  nvme    13   -", "LABDRIVE1  QEMU NVMe Ctrl  nvme    9   -", True),
        ("LABDRIVE1  QEMU NVMe Ctrl  nvme    13   -", "LABDRIVE1  QEMU NVMe Ctrl  nvme    9   1", False),
        ("shares IOMMU group 11, serial A", "shares IOMMU group 11, serial B", False),
        ("first\n…\nlast", "first\nlast", True),
        ("first\n…\nlast", "first\na\nb\nlast", True),
        ("first\n…", "other\nfirst", False),
        ("first", "first\nand more", False),
        ("5 claims", "6 claims", False),
        ("bytes: 1073741824", "bytes: 1073741825", False),
    ],
)
def test_same(page: str, printed: str, alike: bool) -> None:
    assert same(tuple(page.splitlines()), printed) is alike


def test_a_session_is_played_in_its_order(tmp_path: Path) -> None:
    page = DOCS / "first-ten-minutes.md"
    asked: list[str] = []

    def shell(words: str) -> tuple[int, str]:
        asked.append(words)
        assert (tmp_path / "first.toml").exists() == (len(asked) > 1)
        return 3, ""

    wrong = [difference.command.words for difference in play(page, tmp_path, shell)]
    assert asked[0] == "nvlane devices"
    assert "echo $?" not in asked
    assert wrong == [words for words in asked if not words.startswith("sed ")]


def test_there_are_sessions() -> None:
    assert sum(len([*session(page)]) for page in handbook()) > 5
