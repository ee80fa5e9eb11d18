"""A machine's life, each verb in a process of its own: up, status, attach, verify, detach, down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import Up, machine, nvlane, nvlane_alone, snapshot, unchanged, write_spec

from nvlane.apply.snapshot import differences

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running machine with one lane and memory that a target can reach."""
    work = tmp_path_factory.mktemp("life")
    lane = f'kind = "emulated"\nname = "first"\nnamespaces = [{{ image = "{work}/first.raw", size = "32MiB" }}]'
    with machine(write_spec(work, "life", lane, memory_backing="memfd")) as running:
        yield running


LANES = {
    "emulated": 'kind = "emulated"\nnamespaces = [{{ image = "{work}/hot.raw", size = "64MiB" }}]\nwrite_proof = true',
    "vhost-user": 'kind = "vhost-user"\nfile = "{work}/hot.raw"\nsize = "64MiB"\nwrite_proof = true',
    "vhost-user-drive": 'kind = "vhost-user"\ndrive = "serial:LABSPARE"',
    "userspace": 'kind = "userspace"\ndrive = "serial:LABSPARE"\nfrontend = "virtio-scsi"',
    "passthrough": 'kind = "passthrough"\ndrive = "serial:LABSPARE"',
}


@pytest.mark.parametrize("kind", LANES)
def test_attach_verify_detach(up: Up, tmp_path: Path, kind: str) -> None:
    lane = tmp_path / "hot.toml"
    lane.write_text(f'[[lane]]\nname = "hot"\n{LANES[kind].format(work=tmp_path)}\n')
    before = snapshot()
    attached = nvlane_alone("attach", up.name, lane, "--json").ok().json
    assert attached["attached"] == "hot"
    assert {piece["lane"] for piece in attached["evidence"]} == {"first", "hot"}
    assert attached["verified"] is True
    assert nvlane_alone("verify", up.name, "--no-write").ok()
    detached = nvlane_alone("detach", up.name, "hot", "--json").ok().json
    assert [one["name"] for one in detached["lanes"]] == ["first"]
    assert differences(before, snapshot()) == ()
    assert nvlane("verify", up.name).ok()


@pytest.mark.parametrize(
    ("lane", "code"),
    [
        ('kind = "nvdimm"\nbacking = "memory"\nsize = "64MiB"', "nvdimm-hotplug"),
        ('kind = "userspace"\ndrive = "serial:LABSPARE"\nfrontend = "sata"', "frontend-hotplug"),
        ('kind = "emulated"\nvfs = 1\nnamespaces = [{ image = "/tmp/x", size = "1MiB" }]', "emulated-hotplug"),
        ('kind = "passthrough"\ndrive = "serial:LABMOUNT"', "drive-mount"),
    ],
    ids=["nvdimm", "sata", "sriov", "in use"],
)
def test_attach_refuses(up: Up, tmp_path: Path, lane: str, code: str) -> None:
    (tmp_path / "hot.toml").write_text(f"[[lane]]\n{lane}\n")
    with unchanged():
        said = nvlane("attach", up.name, tmp_path / "hot.toml", "--json")
    assert said.status == 3, str(said)
    assert code in [one["code"] for one in said.json["error"]["refusals"]]


def test_a_name_that_is_taken(up: Up, tmp_path: Path) -> None:
    with unchanged():
        said = nvlane("up", "--json", write_spec(tmp_path, up.name))
    assert said.status == 3, str(said)
    (refusal,) = said.json["error"]["refusals"]
    assert (refusal["code"], refusal["remedy"]) == ("machine-runs", "nvlane down life, or choose another name")


def test_what_is_not_as_claimed_is_found(up: Up, tmp_path: Path) -> None:
    """Verification can fail: the device is taken out behind nvlane's back."""
    lane = tmp_path / "hot.toml"
    lane.write_text(f'[[lane]]\nname = "hot"\n{LANES["emulated"].format(work=tmp_path)}\n')
    before = snapshot()
    nvlane("attach", up.name, lane).ok()
    with up.monitor() as monitor:
        monitor.execute("device_del", {"id": "hot"})
        monitor.wait_event("DEVICE_DELETED", match=lambda data: data.get("device") == "hot", deadline=60)
    said = nvlane("verify", up.name, "--json")
    assert said.status == 4, str(said)
    wrong = [piece for piece in said.json["evidence"] if not piece["ok"]]
    assert {piece["lane"] for piece in wrong} == {"hot"}
    assert "QEMU shows no PCI device 'hot'" in wrong[0]["found"]
    nvlane("detach", up.name, "hot").ok()
    assert nvlane("verify", up.name).ok()
    assert differences(before, snapshot()) == ()
