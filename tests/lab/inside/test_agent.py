"""A guest of the user's own, reached through its QEMU guest agent: verified, and nothing is left in it."""

from __future__ import annotations

from collections.abc import Iterator

import agent_guest
import pytest
from at_work import Up, machine, nvlane, write_spec

from nvlane.wire.guest_agent import SocketAgent

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("agent")
    agent_guest.build(work / "initrd")
    kernel = nvlane("plan", "--json", write_spec(work, "plain")).ok().json[0]["machine"]["boot"]["kernel"]
    spec = write_spec(
        work,
        "agent",
        f'kind = "emulated"\nname = "disk"\nnamespaces = [{{ image = "{work}/disk.raw", size = "64MiB" }}]\n'
        "write_proof = true",
        f'kind = "vhost-user"\nname = "file"\nfile = "{work}/file.raw"\nsize = "64MiB"\nwrite_proof = true',
        kernel=kernel,
        initrd=str(work / "initrd"),
        cmdline="console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable random.trust_cpu=on nokaslr",
    )
    with machine(spec) as running:
        yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []
    assert up.found("disk", "is driven by") == "nvme"


def test_nothing_is_left_in_the_guest(up: Up) -> None:
    agent = SocketAgent(up.runtime / "agent.sock", deadline=20)
    try:
        names = [agent.run(["ls", directory], deadline=20).stdout.split() for directory in ("/run", "/tmp")]
    finally:
        agent.close()
    assert not any("nvlane" in name for listed in names for name in listed)
