"""What takes Debian's full kernel, in the lab that has it: RDMA, and a guest with USB; and, since that lab keeps one, a
page of 1 GiB. One machine has it all: a guest that writes, a Target that reads, over RoCE v2 on rdma_rxe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import GIB, Up, machine, nvlane, write_spec
from fabric_room import NQN, exported, fabrics_lane, target_files

from nvlane.lab.roce import TARGET_ADDRESS, bytes_received, roce
from nvlane.lanes.drive import PROOF_LENGTH

pytestmark = [pytest.mark.lab, pytest.mark.full_kernel]
WHERE = ("--transport", "rdma", "--address", TARGET_ADDRESS)


@pytest.fixture(scope="module", autouse=True)
def devices() -> Iterator[None]:
    with roce():
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return target_files(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def up(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """`machine` sees that the host and the Target read what the guest wrote, when it goes down."""
    where = {"transport": "rdma", "address": TARGET_ADDRESS}
    usb = 'kind = "userspace"\nname = "drive"\ndrive = "serial:LABSPARE"\nfrontend = "usb"\nwrite_proof = true'
    heap = 'kind = "nvdimm"\nname = "heap"\nbacking = "hugepages"\nhugepage_size = "1GiB"\nsize = "1GiB"'
    with exported("--file", files[0], "--file", files[1], *WHERE, here=True):
        before = bytes_received(at_target=True)
        spec = write_spec(
            tmp_path_factory.mktemp("full"),
            "full",
            fabrics_lane("blk", **where),
            fabrics_lane("usb", **where, namespace=2, frontend="usb"),
            usb,
            heap,
        )
        with machine(spec) as running:
            yield running
        # Both write proofs went over the wire.
        assert bytes_received(at_target=True) - before > 2 * PROOF_LENGTH


def test_a_guest_has_namespaces_over_rdma(up: Up) -> None:
    assert up.wrong("blk", "usb") == []
    assert {"blk", "usb"} <= {piece["lane"] for piece in up.value["evidence"] if "SHA-256" in piece["claim"]}
    offered = nvlane("fabrics", "discover", *WHERE, "--json").ok().json
    assert (NQN, "rdma", TARGET_ADDRESS) in {(one["subnqn"], one["trtype"], one["traddr"]) for one in offered}
    seen = nvlane("fabrics", "list", "--json").ok().json
    assert {(one["transport"], one["state"]) for one in seen["connections"]} == {("rdma", "live")}


def test_a_port_of_rdma_that_nobody_serves(up: Up) -> None:
    said = nvlane("fabrics", "connect", "wrong", "--nqn", NQN, *WHERE, "--port", "4421")
    assert said.status == 1, str(said)
    assert f"nothing listens at rdma {TARGET_ADDRESS}:4421" in said.err
    assert up.status()["pid"]


def test_a_guest_has_a_drive_behind_usb(up: Up) -> None:
    assert up.wrong("drive") == []


def test_a_guest_has_an_nvdimm_on_a_page_of_1_gib(up: Up) -> None:
    assert up.wrong("heap") == []
    pages = Path(f"/proc/{up.status()['pid']}/smaps").read_text().splitlines()
    assert ["KernelPageSize:", str(GIB // 1024), "kB"] in [line.split() for line in pages]
