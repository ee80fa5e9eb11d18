"""The page of a measurement: its words, and how a real browser shows it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench_results import READS, SPEEDS, result
from browser import Browser, browser, program

from nvlane.bench.result import to_json
from nvlane.cli.main import cli
from nvlane.model.errors import HostError
from nvlane.report import plots
from nvlane.report.page import page

CAVEAT = "the guest's processors were emulated (TCG)"


@pytest.fixture(scope="module")
def careful(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with a caveat and all kinds of plots: the longest that there is."""
    place = tmp_path_factory.mktemp("page") / "page.html"
    place.write_text(page(result(caveats=(CAVEAT,))))
    return place


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if program() is None:
        pytest.skip("no Chromium on this machine; tools/prepare test installs it")
    with browser(tmp_path_factory.mktemp("browser")) as running:
        yield running


@pytest.mark.parametrize(("width", "height", "mobile"), [(390, 844, True), (1280, 900, False)])
def test_a_browser_shows_it_on_a_phone_and_on_a_desk(
    careful: Path, shown: Browser, tmp_path: Path, width: int, height: int, mobile: bool
) -> None:
    shown.open(careful, width=width, height=height, mobile=mobile)
    assert shown.value("document.documentElement.scrollWidth") == width == shown.value("innerWidth")
    figures = shown.value(
        "[...document.querySelectorAll('figure svg')].map(s => { const b = s.getBoundingClientRect();"
        " return [b.left, b.right, b.height, s.querySelectorAll('path').length] })"
    )
    assert len(figures) == 6 + 3
    for left, right, tall, paths in figures:
        assert 0 <= left < right <= width and tall > 100 and paths > 10
    # Text of a plot has the size that it has on the screen: it must be readable without enlarging.
    smallest = shown.value(
        "Math.min(...[...document.querySelectorAll('figure svg text')].map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 8
    assert shown.asked_for() == [careful.as_uri()]
    assert shown.complaints() == []
    picture = Path(os.environ.get("NVLANE_PICTURES", str(tmp_path))) / f"report-{width}.png"
    shown.picture(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_caveat_stands_first_and_nothing_is_concluded(careful: Path) -> None:
    text = careful.read_text()
    assert text.index("say nothing about the speed") < text.index("<svg") and CAVEAT.replace("'", "&#x27;") in text
    assert "expected order" not in text


def test_without_a_caveat_the_order_is_judged() -> None:
    text = page(result(jobs=READS[:1]))
    assert "say nothing" not in text and "expected order" in text and "<td>holds</td>" in text


def test_it_needs_nothing_else_and_escapes_what_it_tells() -> None:
    text = page(result(jobs=READS[:1]))
    assert "<script" not in text and "A drive &lt;of somebody&gt; X1" in text
    addresses = set(re.findall(r'(?:href|src)="([^"]+)"', text))
    assert all(address.startswith(("#", "data:")) for address in addresses), addresses
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {address[1:] for address in addresses if address.startswith("#")} <= set(ids)


def test_the_same_result_makes_the_same_page() -> None:
    assert page(result(jobs=READS[:1])) == page(result(jobs=READS[:1]))


def test_single_round_and_single_lane_are_shown() -> None:
    assert "1.00" in page(result({"emulated": SPEEDS["emulated"]}, rounds=1, jobs=READS[:1]))


def test_verb_writes_the_page_beside_the_result(tmp_path: Path) -> None:
    import json

    place = tmp_path / "r.json"
    place.write_text(json.dumps(to_json(result(jobs=READS[:1]))))
    assert cli.main(["report", str(place)], standalone_mode=False) == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_without_matplotlib_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    with pytest.raises(HostError) as caught:
        page(result(jobs=READS[:1]))
    assert "nvlane[report]" in caught.value.remedy
