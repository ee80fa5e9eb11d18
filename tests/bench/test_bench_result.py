"""Results: their file, what they say, and two of them compared."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from bench_results import READS, SPEEDS, result

from nvlane.bench.compare import compare
from nvlane.bench.result import from_json, to_json
from nvlane.bench.summary import orders, rows
from nvlane.cli.bench_words import comparison_words, result_words
from nvlane.cli.service.bench_file import load, open_or_begin
from nvlane.model.errors import SpecError

SLOWER = {**SPEEDS, "vhost-user": 20_000}


def test_file_is_read_back_as_it_was(tmp_path: Path) -> None:
    kept = open_or_begin(tmp_path / "r.json", result(), fresh=False)
    kept.take(kept.result)
    assert load(tmp_path / "r.json") == result()
    assert [path.name for path in tmp_path.iterdir()] == ["r.json"]


def test_what_is_cut_short_goes_on_and_another_series_does_not(tmp_path: Path) -> None:
    whole = result()
    cut = dataclasses.replace(whole, samples=whole.samples[:7])
    open_or_begin(tmp_path / "r.json", cut, fresh=False).take(cut)
    new = dataclasses.replace(whole, samples=())
    again = open_or_begin(tmp_path / "r.json", new, fresh=False)
    assert again.result == cut and not again.result.complete and whole.complete
    other = dataclasses.replace(new, series=dataclasses.replace(new.series, rounds=9))
    with pytest.raises(SpecError, match="another measurement \\(rounds differ\\)"):
        open_or_begin(tmp_path / "r.json", other, fresh=False)
    assert open_or_begin(tmp_path / "r.json", other, fresh=True).result == other


@pytest.mark.parametrize("value", [[], {}, {"format": 99, "series": {}}, {"format": 1, "series": {"x": 1}}])
def test_what_is_no_result_is_named(value: object, tmp_path: Path) -> None:
    with pytest.raises(SpecError):
        from_json(value, "r.json")
    (tmp_path / "r.json").write_text("{")
    with pytest.raises(SpecError, match="no JSON"):
        load(tmp_path / "r.json")
    with pytest.raises(SpecError, match="cannot read"):
        load(tmp_path / "nothing.json")


def test_json_is_plain() -> None:
    assert json.loads(json.dumps(to_json(result()))) == to_json(result())


def test_rows_are_medians_and_costs() -> None:
    found = {(row.lane, row.job): row for row in rows(result())}
    row = found["vhost-user", "randread-4k-8"]
    assert row.iops == pytest.approx(40_800)
    assert row.bytes_a_second == pytest.approx(40_800 * 4096)
    assert row.latency["50"] == pytest.approx(1e6 * 8 / 40_800, rel=0.03)
    assert row.latency["99"] == pytest.approx(3 * row.latency["50"], rel=0.05)
    assert (row.cost.qemu, row.cost.target, row.cost.vcpus) == pytest.approx((2.0, 1.0, 5.0))
    assert row.to_fastest.value == pytest.approx(0.8) and row.to_fastest.high < 1
    assert found["passthrough", "randread-4k-8"].to_fastest.value == 1


def test_the_expected_order_holds_fails_or_is_left_open() -> None:
    assert {order.holds for order in orders(result())} == {True}
    assert orders(result({**SPEEDS, "userspace": 90_000}))[0].holds is False
    assert orders(result({**SPEEDS, "userspace": 40_000}))[0].holds is None
    assert orders(result({"emulated": 1000})) == ()


def test_words_draw_no_conclusion_where_there_is_a_caveat() -> None:
    plain, careful = result_words(result()), result_words(result(caveats=("TCG",)))
    assert "the order passthrough > vhost-user > userspace > emulated holds" in plain
    assert "order" not in careful and "No conclusion about speed: TCG." in careful


def test_a_slower_lane_is_found_and_the_others_are_left_alone() -> None:
    one = (READS[0],)
    found = compare(result(jobs=one, rounds=7), result(SLOWER, jobs=one, rounds=7))
    verdicts = {row.lane: row.verdict for row in found.rows}
    assert verdicts == dict.fromkeys(SPEEDS, "no difference shown") | {"vhost-user": "slower"}
    (row,) = [row for row in found.rows if row.lane == "vhost-user"]
    assert row.change.value == pytest.approx(0.5) and row.p == pytest.approx(4 * 2 / 3432)
    assert "slower" in comparison_words(found, ())


def test_few_rounds_are_said_to_be_few() -> None:
    found = compare(result(rounds=3), result(SLOWER, rounds=3))
    assert {row.verdict for row in found.rows} == {"too few rounds"}


def test_what_differs_beside_the_lanes_is_said() -> None:
    found = compare(result(), result({"emulated": 10_000}, hostname="another"))
    assert found.unlike == ("hostname: host before, another after",)
    assert len(found.unmatched) == 12 and len(found.rows) == 4
    with pytest.raises(SpecError, match="no lane and job in common"):
        compare(result({"emulated": 1000}), result({"userspace": 1000}))
