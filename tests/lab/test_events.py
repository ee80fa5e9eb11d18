"""What only the world outside the host can do to it: a reset, a drive that is pulled, a board without an IOMMU."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from session_lab import NAME

from nvlane import lab
from nvlane.apply.process import Completed
from nvlane.lab import Lab, LabMachine
from nvlane.lab.drives import GIB

pytestmark = pytest.mark.lab

SNAPSHOT = """
import json, sys
sys.path[:0] = ["/nvlane/tests/lab/inside"]
from at_work import snapshot
from nvlane.model.codec import encode
print(json.dumps(encode(snapshot())))
"""
SPARE = "LABSPARE"


def snapshot(room: Lab) -> dict[str, Any]:
    """What nvlane may touch of the lab."""
    value: dict[str, Any] = json.loads(room.run(["python3", "-c", SNAPSHOT]).stdout)
    return value


def nvlane(room: Lab, *words: str, status: int = 0) -> Completed:
    """nvlane in the lab; it must end with this status."""
    done = room.run(["nvlane", *words], check=False, timeout=300)
    assert done.returncode == status, f"nvlane {' '.join(words)}: {done.returncode}\n{done.stderr}\n{done.stdout}"
    return done


def write_spec(room: Lab, name: str, body: str, **machine: object) -> str:
    table = {"name": name, "memory": "128MiB", "cpus": 1, **machine}
    text = "\n".join(["[machine]", *(f"{key} = {json.dumps(value)}" for key, value in table.items()), body])
    room.put(text.encode(), f"/root/{name}.toml")
    return f"/root/{name}.toml"


def test_the_host_is_reset_under_a_machine(room: Lab) -> None:
    """What lived in memory is gone with the boot and is not undone twice; files are."""
    before = snapshot(room)
    lanes = (
        '[[lane]]\nkind = "passthrough"\ndrive = "serial:LABDRIVE1"\n'
        '[[lane]]\nkind = "vhost-user"\nfile = "/var/tmp/reset.raw"\nsize = "16MiB"\n'
    )
    spec = write_spec(room, "reset", lanes, memory_backing="hugepages", node=0)
    nvlane(room, "up", "--no-verify", spec)
    assert "/var/tmp/reset.raw" in room.run(["ls", "/var/tmp/reset.raw"]).stdout
    room.reset()
    status = json.loads(nvlane(room, "status", "reset", "--json").stdout)
    assert (status["state"], status["why"]) == ("left", "the host was booted anew since")
    nvlane(room, "verify", "reset", status=1)
    (restored,) = json.loads(nvlane(room, "restore", "--json").stdout)
    assert restored["restored"] is True
    volatile = [step for step in restored["steps"] if step["text"].startswith(("give", "release", "unload"))]
    assert {step["fate"] for step in volatile} == {"was already so"}
    assert snapshot(room) == before
    assert room.run(["test", "-e", "/var/tmp/reset.raw"], check=False).returncode == 1


@pytest.fixture
def plugged_again(room: Lab) -> Iterator[None]:
    """LABSPARE back in its port, whatever became of it."""
    yield
    with room.monitor() as monitor:
        there = {one["name"] for one in monitor.execute("qom-list", {"path": "/machine/peripheral"})}
    if SPARE.lower() not in there:
        room.insert(SPARE)


def test_a_drive_is_pulled_from_a_running_guest(room: Lab, plugged_again: None) -> None:  # noqa: ARG001
    """The guest lets it go; that it cannot be given back is said, with exit status 5, until it is there again."""
    before = snapshot(room)
    spec = write_spec(room, "pulled", f'[[lane]]\nkind = "passthrough"\ndrive = "serial:{SPARE}"\n', memory="256MiB")
    nvlane(room, "up", spec)
    room.pull(SPARE)
    said = nvlane(room, "down", "pulled", status=5)
    assert re.search(rf"not put back: give .*\(serial {SPARE}\) back to nvme", said.stderr)
    assert "nvlane restore pulled" in said.stderr
    room.insert(SPARE)
    nvlane(room, "restore", "pulled")
    assert snapshot(room) == before


def test_a_board_without_an_iommu() -> None:
    """Refused for VFIO, with what would help; uio_pci_generic is for those who ask for it by name."""
    machine = LabMachine(name=f"{NAME}-plain", memory=2 * GIB, append="intel_iommu=off")
    with lab.up(machine) as plain:
        spec = write_spec(plain, "plain", '[[lane]]\nkind = "passthrough"\ndrive = "serial:LABDRIVE1"\n')
        before = snapshot(plain)
        refused = json.loads(nvlane(plain, "up", "--json", spec, status=3).stdout)["error"]["refusals"]
        assert [one["code"] for one in refused] == ["no-iommu"]
        assert "iommu_group does not exist" in refused[0]["evidence"][0]
        assert "intel_iommu=on" in refused[0]["remedy"]
        assert snapshot(plain) == before
        nvlane(plain, "host", "setup", "--drive", "serial:LABDRIVE1", "--driver", "uio_pci_generic")
        status = json.loads(nvlane(plain, "host", "status", "--json").stdout)
        assert [one["driver"] for one in status["drives"] if one["serial"] == "LABDRIVE1"] == ["uio_pci_generic"]
        nvlane(plain, "host", "reset")
        assert snapshot(plain) == before
    assert not Path(plain.directory).exists()
