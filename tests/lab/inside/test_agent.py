"""A guest of the user's own, reached through its QEMU guest agent: verified, and nothing is left in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import agent_guest
import pytest
from at_work import Up, machine, nvlane, write_spec

from nvlane.apply import process
from nvlane.wire.guest_agent import SocketAgent

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    work = tmp_path_factory.mktemp("agent")
    agent_guest.build(work / "initrd")
    process.run(["mke2fs", "-q", "-F", "-t", "ext4", str(work / "kept.raw"), "16M"])
    kernel = nvlane("plan", "--json", write_spec(work, "plain")).ok().json[0]["machine"]["boot"]["kernel"]
    spec = write_spec(
        work,
        "agent",
        f'kind = "emulated"\nname = "disk"\nnamespaces = [{{ image = "{work}/disk.raw", size = "64MiB" }}]\n'
        "write_proof = true",
        f'kind = "emulated"\nname = "kept"\nnamespaces = [{{ image = "{work}/kept.raw" }}]',
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


#: Mounts the disk of the lane 'kept', and writes a file without a sync.
WRITE = """d=$(grep -l agent-kept /sys/class/nvme/*/serial); d=${d%/serial}; mkdir -p /run/fs
mount -t ext4 /dev/${d##*/}n1 /run/fs && echo written > /run/fs/file"""


def test_a_snapshot_of_frozen_file_systems(up: Up, tmp_path: Path) -> None:
    """What the guest had only in its cache is in the image that the snapshot leaves, and the guest goes on."""
    disk = next(Path(disk["path"]) for disk in up.status()["disks"] if disk["name"] == "kept")
    agent = SocketAgent(up.runtime / "agent.sock", deadline=20)
    try:
        assert agent.run(["sh", "-c", WRITE], deadline=20).status == 0
    finally:
        agent.close()
    said = nvlane("snapshot", "agent", "kept", "--to", tmp_path / "above.qcow2", "--json").ok().json
    assert said["frozen"] is True
    assert process.run(["debugfs", "-R", "cat file", str(disk)]).stdout == "written\n"
    agent = SocketAgent(up.runtime / "agent.sock", deadline=20)
    try:
        assert agent.command("guest-fsfreeze-status", deadline=20) == "thawed"
        assert agent.run(["sh", "-c", "echo more >> /run/fs/file && umount /run/fs"], deadline=20).status == 0
    finally:
        agent.close()
