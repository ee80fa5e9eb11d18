"""`nvlane host setup` as a plan: what it would reserve and bind, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from nvlane.facts.shape import Facts, HugepagePool, Mount
from nvlane.model.codec import decode
from nvlane.model.size import GIB, MIB
from nvlane.plan.plan import Plan
from nvlane.plan.prepare import UserspaceDriver, Wanted, prepare
from nvlane.plan.step import BindDriver, LoadModule, MountHugetlbfs, ReserveHugepages

FACTS = Path(__file__).parent.parent / "cases" / "facts" / "server.json"


@pytest.fixture
def facts() -> Facts:
    """A server whose pools are empty."""
    read = decode(Facts, json.loads(FACTS.read_text()))
    pools = tuple(
        HugepagePool(node=node, page_size=size, total=0, free=0) for node in (0, 1) for size in (2 * MIB, GIB)
    )
    return dataclasses.replace(read, hugepages=pools)


def _codes(plan: Plan) -> set[str]:
    return {refusal.code for refusal in plan.refusals}


def _reserved(plan: Plan) -> dict[int, int]:
    return {step.node: step.pages for step in plan.steps if isinstance(step, ReserveHugepages)}


def _bound(plan: Plan) -> dict[str, str]:
    return {str(step.address): step.driver for step in plan.steps if isinstance(step, BindDriver)}


def test_pages_are_shared_out_over_the_nodes(facts: Facts) -> None:
    assert _reserved(prepare(Wanted(pages=5, page_size=2 * MIB), facts)) == {0: 3, 1: 2}
    assert _reserved(prepare(Wanted(pages=5, page_size=2 * MIB, node=1), facts)) == {1: 5}


def test_what_is_there_counts(facts: Facts) -> None:
    pools = tuple(
        dataclasses.replace(pool, total=2, free=1) if (pool.node, pool.page_size) == (0, 2 * MIB) else pool
        for pool in facts.hugepages
    )
    plan = prepare(Wanted(pages=6, page_size=2 * MIB), dataclasses.replace(facts, hugepages=pools))
    assert _reserved(plan) == {0: 1, 1: 3}
    enough = tuple(dataclasses.replace(pool, total=8, free=0) for pool in facts.hugepages)
    assert not _reserved(prepare(Wanted(pages=16, page_size=2 * MIB), dataclasses.replace(facts, hugepages=enough)))


def test_a_hugetlbfs_is_mounted_once(facts: Facts) -> None:
    (mount,) = (s for s in prepare(Wanted(pages=1, page_size=GIB), facts).steps if isinstance(s, MountHugetlbfs))
    assert mount.page_size == GIB
    assert mount.target.endswith("/hugepages-1GiB")
    there = Mount(target="/huge", fstype="hugetlbfs", source="hugetlbfs", options="rw,pagesize=1024M")
    again = prepare(Wanted(pages=1, page_size=GIB), dataclasses.replace(facts, hugetlbfs=(there,)))
    assert not any(isinstance(step, MountHugetlbfs) for step in again.steps)


def test_more_than_the_node_has(facts: Facts) -> None:
    assert _codes(prepare(Wanted(pages=1 << 30, page_size=2 * MIB, node=0), facts)) == {"hugepages-short"}
    assert _codes(prepare(Wanted(pages=1, page_size=2 * MIB, node=7), facts)) == {"hugepage-size"}


def test_a_drive_with_its_modules(facts: Facts) -> None:
    plan = prepare(Wanted(drives=("serial:S4EVDATA000002",)), facts)
    assert not plan.refusals
    assert _bound(plan) == {"0000:04:00.0": "vfio-pci"}
    assert [step.name for step in plan.steps if isinstance(step, LoadModule)] == ["vfio-pci", "vfio_iommu_type1"]
    assert any("holds" in note.text for note in plan.notes)


@pytest.mark.parametrize(
    ("drive", "code"),
    [
        ("serial:S4EVROOT000001", "drive-root"),
        ("0000:06:00.0", "drive-mount"),
        ("0000:05:00.0", "sibling-in-use"),
        ("serial:NONE", "no-drive"),
    ],
)
def test_refused_drives(facts: Facts, drive: str, code: str) -> None:
    plan = prepare(Wanted(drives=(drive,)), facts)
    assert code in _codes(plan)
    assert not plan.steps


def test_all_idle_drives_and_none_that_is_used(facts: Facts) -> None:
    plan = prepare(Wanted(all_idle=True), facts)
    used = {str(drive.address) for drive in facts.drives if drive.uses}
    assert used
    assert not plan.refusals
    assert _bound(plan)
    assert not used & set(_bound(plan))
    assert all(any(address in note.text for note in plan.notes) for address in used)


def test_uio_only_by_name_and_without_an_iommu(facts: Facts) -> None:
    functions = tuple(dataclasses.replace(function, iommu_group=None) for function in facts.functions)
    bare = dataclasses.replace(facts, functions=functions)
    wanted = Wanted(drives=("0000:04:00.0",))
    assert _codes(prepare(wanted, bare)) == {"no-iommu"}
    by_name = dataclasses.replace(wanted, driver=UserspaceDriver.UIO_PCI_GENERIC)
    assert facts.vfio is not None
    able = dataclasses.replace(bare, vfio=dataclasses.replace(facts.vfio, uio_available=True))
    assert _bound(prepare(by_name, able)) == {"0000:04:00.0": "uio_pci_generic"}
    unable = dataclasses.replace(bare, vfio=dataclasses.replace(facts.vfio, uio_available=False))
    assert _codes(prepare(by_name, unable)) == {"no-uio"}


def test_a_drive_that_is_there_already(facts: Facts) -> None:
    functions = tuple(
        dataclasses.replace(function, driver="vfio-pci") if str(function.address) == "0000:04:00.0" else function
        for function in facts.functions
    )
    plan = prepare(Wanted(drives=("0000:04:00.0",)), dataclasses.replace(facts, functions=functions))
    assert not plan.refusals
    assert not plan.steps


def test_not_root(facts: Facts) -> None:
    assert _codes(prepare(Wanted(pages=1, page_size=2 * MIB), dataclasses.replace(facts, uid=1000))) == {"not-root"}
