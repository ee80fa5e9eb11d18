"""RDMA in the lab with the full kernel: a guest writes and the Target reads, over RoCE v2 on rdma_rxe."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import machine, nvlane, unchanged, write_spec
from fabric_room import NQN, exported, fabrics_lane, target_files

from nvlane.lab.roce import HOST_ADDRESS, TARGET_ADDRESS, bytes_received, roce
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


def test_a_guest_over_rdma(files: list[Path], tmp_path: Path) -> None:
    with exported("--file", files[0], "--file", files[1], *WHERE, here=True):
        offered = nvlane("fabrics", "discover", *WHERE, "--json").ok().json
        assert (NQN, "rdma", TARGET_ADDRESS) in {(one["subnqn"], one["trtype"], one["traddr"]) for one in offered}
        before = bytes_received(at_target=True)
        where = {"transport": "rdma", "address": TARGET_ADDRESS}
        spec = write_spec(
            tmp_path,
            "overrdma",
            fabrics_lane("blk", **where),
            fabrics_lane("usb", **where, namespace=2, frontend="usb"),
        )
        with machine(spec) as running:
            assert running.wrong() == []
            seen = nvlane("fabrics", "list", "--json").ok().json
            assert {(one["transport"], one["state"]) for one in seen["connections"]} == {("rdma", "live")}
        # Both write proofs went over the wire.
        assert bytes_received(at_target=True) - before > 2 * PROOF_LENGTH


def test_why_a_host_cannot_connect_over_rdma(files: list[Path]) -> None:
    def refused(*words: str) -> str:
        with unchanged():
            said = nvlane("fabrics", "connect", "c", "--nqn", NQN, "--transport", "rdma", *words)
        assert said.status not in (0, 5), str(said)
        return said.err

    with exported("--file", files[0], *WHERE, here=True):
        nvlane("fabrics", "connect", "c", "--nqn", NQN, *WHERE, "--host-address", HOST_ADDRESS).ok()
        nvlane("fabrics", "disconnect", "c").ok()
        assert "does not allow the host" in refused("--address", TARGET_ADDRESS, "--host-nqn", f"{NQN}-stranger")
        assert "nothing listens at" in refused("--address", TARGET_ADDRESS, "--port", "4421")
        assert "no device here reaches that address" in refused("--address", "127.0.0.1")
