"""Advice: what it ranks, what it rests on, and that the spec which it prints is one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvlane.advise.cell import Answer, Gives, Operation, Way
from nvlane.advise.draft import Draft, Unfit, drafts, room_for
from nvlane.advise.matrix import cell
from nvlane.advise.ranking import Choice, advise
from nvlane.advise.ways import WAYS
from nvlane.advise.wish import Need, Wish, meaning
from nvlane.facts.shape import Facts
from nvlane.lanes.compose import make_plan
from nvlane.spec.reader import parse_spec
from nvlane.targets.table import ENGINES

sys.path.insert(0, str(Path(__file__).parents[1] / "plan"))
from plan_case import CASES, base_facts

HOSTS = sorted(path.stem for path in (CASES / "facts").glob("*.json"))
BY_NAME = {way.name: way for way in WAYS}


@functools.cache
def host(name: str) -> Facts:
    return base_facts(name)


def _codes(way: str, facts: Facts) -> set[str]:
    """What refuses every draft of a way on a host."""
    made = drafts(BY_NAME[way], Wish(), facts)
    if isinstance(made, Unfit):
        return {"no-way"}
    tried = [make_plan(draft.spec, room_for(draft.spec, facts), ENGINES).refusals for draft in made]
    return set.intersection(*({refusal.code for refusal in refusals} for refusals in tried))


@functools.cache
def rich() -> Facts:
    """A host on which nothing is missing: the server, and what the other hosts of the tests have."""
    server, client = host("server"), host("storage-client")
    return dataclasses.replace(
        server,
        modules=tuple({*server.modules, *client.modules}),
        loadable=tuple({*server.loadable, *client.loadable}),
        fabrics=client.fabrics,
    )


@pytest.mark.parametrize("way", BY_NAME)
def test_on_a_rich_host_every_way_is_possible(way: str) -> None:
    assert _codes(way, rich()) == set()


@pytest.mark.parametrize("way", BY_NAME)
def test_without_a_guest_of_nvlanes_own_the_spec_names_what_it_boots(way: str) -> None:
    bare = dataclasses.replace(rich(), probe_kernel="", probe_initrd="")
    made = drafts(BY_NAME[way], Wish(), bare)
    assert not isinstance(made, Unfit)
    assert all('image = "boot.qcow2"' in draft.text for draft in made)
    assert _codes(way, bare) == set()


@pytest.mark.parametrize("way", BY_NAME)
def test_without_an_iommu(way: str) -> None:
    """Groups gone, a way is refused if and only if the matrix says that it needs them."""
    functions = tuple(dataclasses.replace(function, iommu_group=None) for function in rich().functions)
    bare = dataclasses.replace(rich(), functions=functions, iommu="")
    assert ("no-iommu" in _codes(way, bare)) == (cell(BY_NAME[way], Operation.NEEDS_IOMMU).answer is Answer.YES)
    assert bool(_codes(way, bare)) == ("no-iommu" in _codes(way, bare))


@pytest.mark.parametrize("way", BY_NAME)
def test_without_hugepages(way: str) -> None:
    """No pool at all, and every way still has a spec that is planned."""
    assert _codes(way, dataclasses.replace(rich(), hugepages=(), default_hugepage=0)) == set()


@pytest.mark.parametrize("way", BY_NAME)
def test_without_drives(way: str) -> None:
    """What takes a drive, or a part of one, cannot be written down where there is none; all else can."""
    bare = dataclasses.replace(rich(), drives=(), functions=())
    takes = BY_NAME[way].takes_drive or way == "passthrough-vf"
    assert _codes(way, bare) == ({"no-way"} if takes else set())


needs = st.lists(st.sampled_from(Need), unique=True, max_size=5).map(tuple)
wishes = st.builds(
    Wish,
    needs=needs,
    density=st.sampled_from([1, 2, 40]),
    latency=st.booleans(),
    machine=st.sampled_from(["vm", "sles15", "a.b-c_1"]),
    image=st.sampled_from(["", "disk0.qcow2", '/srv/a "b"\\c.qcow2']),
    size=st.sampled_from([0, 1 << 30, 100 << 30]),
    directory=st.just("/srv/vm"),
)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), name=st.sampled_from(HOSTS), wish=wishes)
def test_every_spec_reads_and_is_planned(data: st.DataObject, name: str, wish: Wish) -> None:
    """On every host of the tests, for any wish: what is called possible is planned without a refusal from the text
    that is printed, and what is not says why and what would help."""
    facts = host(name)
    named = [f"serial:{drive.serial}" for drive in facts.drives if drive.serial]
    wish = dataclasses.replace(wish, drive=data.draw(st.sampled_from(["", *named])))
    choices = advise(wish, facts, ENGINES)
    assert {choice.way.name for choice in choices} == set(BY_NAME)
    for choice in choices:
        if choice.draft is not None:
            spec = parse_spec(choice.draft.text, "", wish.directory)
            assert spec == choice.draft.spec
            refusals = make_plan(spec, room_for(spec, facts), ENGINES).refusals
            assert (refusals == ()) == choice.possible
        if not choice.possible:
            assert choice.refusals and all(refusal.reason for refusal in choice.refusals)
    _in_order(choices, wish)


def _in_order(choices: tuple[Choice, ...], wish: Wish) -> None:
    """What can be done stands before what cannot, and whoever lacks less of what was asked before whoever lacks more;
    each that can be done, but the first, says why it is not higher."""
    able = [choice for choice in choices if choice.possible]
    assert list(choices[: len(able)]) == able
    lacking = [sum(met.lost for met in choice.met) + bool(choice.crowd) for choice in able]
    assert lacking == sorted(lacking)
    assert all(choice.behind for choice in able[1:])
    assert all(not choice.crowd or wish.density > 1 for choice in able)


def ranked(wish: Wish, facts: Facts | None = None) -> list[str]:
    return [choice.way.name for choice in advise(wish, facts or rich(), ENGINES) if choice.fits]


def test_latency_follows_the_order_of_the_design() -> None:
    order = ranked(Wish(latency=True))
    places = [order.index(name) for name in ("passthrough", "vhost-user-drive", "userspace", "emulated")]
    assert places == sorted(places)


def test_live_migration_and_snapshots_leave_out_who_has_neither() -> None:
    order = ranked(Wish(needs=(Need.LIVE_MIGRATION, Need.SNAPSHOT)))
    assert set(order) == {"userspace", "fabrics"}


def test_a_target_that_nobody_named_stands_behind_what_can_be_used_as_it_is() -> None:
    order = ranked(Wish(needs=(Need.SNAPSHOT,)))
    assert order[0] != "fabrics"
    named = Wish(needs=(Need.SNAPSHOT,), address="10.0.0.2", nqn="nqn.2014-08.org.example:disks")
    assert ranked(named).index("fabrics") < order.index("fabrics")


def test_dense_machines_do_not_each_take_a_drive() -> None:
    crowd = {choice.way.name: choice.crowd for choice in advise(Wish(density=40), rich(), ENGINES)}
    assert "40 machines" in crowd["passthrough"] and "40 machines" in crowd["userspace"]
    assert crowd["emulated"] == crowd["vhost-user-file"] == ""
    assert "virtual function" in crowd["passthrough-vf"]


def test_a_shared_drive() -> None:
    order = ranked(Wish(needs=(Need.SHARE_DRIVE,)))
    assert "passthrough-vf" in order
    assert not {way.name for way in WAYS if way.takes_drive} & set(order)


@pytest.mark.parametrize(("need", "gives"), [(Need.NVME, Gives.NVME), (Need.PERSISTENT_MEMORY, Gives.MEMORY)])
def test_what_the_guest_gets_can_be_asked_for(need: Need, gives: Gives) -> None:
    order = ranked(Wish(needs=(need,)))
    assert order
    assert {BY_NAME[name].gives for name in order} == {gives}


def test_without_an_iommu_the_rest_is_advised() -> None:
    functions = tuple(dataclasses.replace(function, iommu_group=None) for function in rich().functions)
    order = ranked(Wish(latency=True), dataclasses.replace(rich(), functions=functions, iommu=""))
    assert order
    assert not {way.name for way in WAYS if cell(way, Operation.NEEDS_IOMMU).answer is Answer.YES} & set(order)


def test_equals_are_told_apart_in_words() -> None:
    """Two neighbours never stand in their order without a reason that names the other."""
    for wish in (Wish(), Wish(latency=True), Wish(needs=(Need.SNAPSHOT,)), Wish(density=40)):
        able = [choice for choice in advise(wish, rich(), ENGINES) if choice.possible]
        for before, after in itertools.pairwise(able):
            gives = f"gives the guest {after.way.gives}"
            assert before.way.name in after.behind or gives in after.behind, after.behind


def test_a_drive_that_holds_nothing_is_taken_before_one_that_does() -> None:
    for way in (way for way in WAYS if way.takes_drive):
        made = drafts(way, Wish(), rich())
        assert not isinstance(made, Unfit)
        assert _holds(made) == sorted(_holds(made))


def _holds(made: tuple[Draft, ...]) -> list[bool]:
    used = {f"serial:{drive.serial}" for drive in rich().drives if drive.uses}
    return [bool(draft.holds) for draft in made if draft.drive not in used]


def test_a_drive_by_name_is_in_every_spec_that_can_have_it() -> None:
    drive = next(drive for drive in rich().drives if drive.serial and drive.namespaces and not drive.uses)
    wish = Wish(drive=f"serial:{drive.serial}")
    for choice in advise(wish, rich(), ENGINES):
        if choice.possible:
            assert drive.serial in choice.draft.text or drive.namespaces[0].name in choice.draft.text  # type: ignore[union-attr]
        elif choice.way.gives is Gives.MEMORY:
            assert "leave --drive out" in choice.refusals[0].remedy


def test_every_need_has_words() -> None:
    assert all(meaning(need) for need in Need)
    assert {need.operation for need in Need if need.operation} == set(Operation)


def test_a_need_of_a_cost_is_its_absence() -> None:
    def way(one: Way) -> dict[Need, Answer]:
        wish = Wish(needs=(Need.NO_IOMMU,))
        (choice,) = [choice for choice in advise(wish, rich(), ENGINES) if choice.way is one]
        return {met.need: met.cell.answer for met in choice.met}

    assert way(BY_NAME["passthrough"])[Need.NO_IOMMU] is Answer.NO
    assert way(BY_NAME["emulated"])[Need.NO_IOMMU] is Answer.YES
