"""The streams that the tests run in, side by side with `-n 2`.

Most of the time goes to the tests that need the lab, which have a processor to themselves: what emulates it. The other
tests use this host, some the same part of it, so they stay one after another; whoever ends first takes the last stream.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePosixPath


class Stream(StrEnum):
    """`NETWORKS`: what needs a lab, and in it name spaces, other hosts or libvirt."""

    HOST = "tests"
    LAB = "tests/lab"
    NETWORKS = "tests/lab, networks"


def stream_of(nodeid: str) -> Stream:
    """The stream of a test."""
    path = PurePosixPath(nodeid.partition("::")[0])
    if not path.is_relative_to("tests/lab"):
        return Stream.HOST
    return Stream.NETWORKS if "fabrics" in path.name or "libvirt" in path.name else Stream.LAB
