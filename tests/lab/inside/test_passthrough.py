"""The passthrough lane in the lab: two whole controllers and a virtual function, in one guest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from at_work import Up, machine, write_spec
from lab_drives import address, driver_of, virtual_functions

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with virtual_functions("LABVF", 1):
        spec = write_spec(
            tmp_path_factory.mktemp("passthrough"),
            "passthrough",
            'kind = "passthrough"\nname = "serial"\ndrive = "serial:LABDRIVE2"\nwrite_proof = true',
            f'kind = "passthrough"\nname = "address"\ndrive = "{address("LABDRIVE1")}"\niommu = "container"',
            'kind = "passthrough"\nname = "function"\ndrive = "serial:LABVF/vf0"',
        )
        with machine(spec) as running:
            yield running


def test_every_claim_is_true(up: Up) -> None:
    assert up.wrong() == []


def test_the_guest_has_the_drives_with_these_serials(up: Up) -> None:
    assert up.found("serial", "serial") == "LABDRIVE2"
    assert up.found("serial", "namespaces") == "2"
    assert up.found("address", "serial") == "LABDRIVE1"


def test_the_content_that_the_host_saw_is_there(up: Up) -> None:
    digests = [piece for piece in up.value["evidence"] if "SHA-256" in piece["claim"]]
    assert sorted(piece["lane"] for piece in digests) == ["address", "serial", "serial"]


def test_the_guest_has_the_virtual_function(up: Up) -> None:
    assert up.found("function", "is driven by") == "nvme"


def test_the_host_has_none_of_them(up: Up) -> None:
    taken = [line.split()[1] for line in up.status()["to_undo"] if line.startswith("bind")]
    assert len(taken) == 3
    assert {driver_of(function) for function in taken} == {"vfio-pci"}


def test_data_on_a_drive_is_named(up: Up) -> None:
    assert "holds ext4" in up.said.err
