"""One room a release for all tests of this directory, with a guest to boot."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import room_domains
from libvirt_room import Room, room

from nvlane.apply.process import run


@pytest.fixture(scope="session", params=["bookworm", "trixie"])
def stand(request: pytest.FixtureRequest) -> Iterator[Room]:
    """A real libvirtd; Debian 12's has no virtio-pmem beside other memory devices."""
    if not shutil.which("mmdebstrap") or run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode:
        pytest.skip("needs mmdebstrap, and root that may make name spaces")
    with room(request.param) as stands:
        made = stands.run("python3", "-c", room_domains.MAKE_GUEST).ok()
        stands.cmdline = made.out.strip()
        yield stands
