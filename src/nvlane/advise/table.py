"""The matrix as text: a table that fits a terminal, Markdown for docs/lanes.md, plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from nvlane.advise.cell import MEANING, Answer, Cell, Operation, Way
from nvlane.advise.matrix import cell
from nvlane.advise.ways import ORDER_IS, WAYS

SIGN: Final[Mapping[Answer, str]] = {
    Answer.YES: "yes",
    Answer.NO: "no",
    Answer.IF: "if",
    Answer.MOOT: "-",
    Answer.UNPROVEN: "?",
}
LEGEND: Final = "if: with a condition; -: nothing to ask; ?: not proven, no test has shown it"


def text_table() -> str:
    """Operations down, ways across: 79 columns at most."""
    heads = [way.short for way in WAYS]
    widths = [max(3, len(head)) for head in heads]
    lines = [_line("", heads, widths)]
    lines += [_line(str(one), [SIGN[cell(way, one).answer] for way in WAYS], widths) for one in Operation]
    lines += ["", LEGEND, "needs-iommu, needs-hugepages, idle-cpu are costs: there no is the good answer", ""]
    lines += [f"{way.short:<5} {way.name:<18} {way.title}" for way in WAYS]
    lines += ["", "nvlane advise --matrix LANE says why, and which test shows it."]
    return "\n".join(lines)


def _line(head: str, cells: list[str], widths: list[int]) -> str:
    columns = " ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True))
    return f"{head:<16}{columns}".rstrip()


def text_of(way: Way) -> str:
    """One way: every answer with its reason and its evidence."""
    lines = [f"{way.name}: {way.title}", f"the guest gets {way.gives}", ""]
    for operation in Operation:
        found = cell(way, operation)
        lines.append(f"{operation:<16}{SIGN[found.answer]:<5}{found.why}")
        lines += [f"{'':<21}{test}" for test in found.evidence]
    return "\n".join(lines)


def values() -> dict[str, Any]:
    """For programs."""
    return {
        "operations": {str(one): {"meaning": MEANING[one], "cost": one.is_cost} for one in Operation},
        "order": ORDER_IS,
        "lanes": [
            {
                "name": way.name,
                "kind": str(way.kind),
                "title": way.title,
                "gives": str(way.gives),
                "order": way.order,
                "cells": {str(one): _value(cell(way, one)) for one in Operation},
            }
            for way in WAYS
        ],
    }


def _value(found: Cell) -> dict[str, Any]:
    return {"answer": str(found.answer), "why": found.why, "evidence": list(found.evidence)}


def markdown() -> str:
    """docs/lanes.md."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# What each lane can do"
    yield ""
    yield "This page is made of `src/nvlane/advise/` (`NVLANE_REGENERATE=1 pytest tests/unit/test_advise_matrix.py`)."
    yield "The same table is what `nvlane advise` rests on, and `nvlane advise --matrix` prints it. Every answer cites"
    yield "the tests that show it; where there is none it says *not proven*, which is no promise either way."
    yield ""
    yield f"About speed it says nothing: {ORDER_IS},"
    yield "because of how their data paths are made. `nvlane bench` measures it on your machine."
    yield ""
    yield "```console"
    yield "$ nvlane advise --need snapshot --need live-migration     # what suits that on this host, and what it loses"
    yield "$ nvlane advise --latency --density 40 --need share-drive --spec >many.toml"
    yield "$ nvlane advise --facts other-host.json --drive serial:S4EVNX0M512345"
    yield "$ nvlane advise --matrix userspace                        # every answer of one way, and its tests"
    yield "```"
    yield ""
    yield "`advise` plans every way against the facts of the host, so that it calls nothing possible which `up` would"
    yield "refuse. First comes whoever has all that was asked, then whoever has it under fewer conditions, then whoever"
    yield "loses least besides; each says what put another before it. A lane of which an asked thing is not proven is"
    yield "never called fit."
    yield ""
    yield f"| | {' | '.join(f'[{way.name}](#{way.name})' for way in WAYS)} |"
    yield f"| --- |{' --- |' * len(WAYS)}"
    for one in Operation:
        yield f"| **{one}**: {MEANING[one]} | {' | '.join(SIGN[cell(way, one).answer] for way in WAYS)} |"
    yield ""
    yield f"{LEGEND}. The last three are costs: there *no* is the good answer."
    for way in WAYS:
        yield from _section(way)


def _section(way: Way) -> Iterator[str]:
    page = f"lanes/{way.kind}.md"
    yield ""
    yield f"## {way.name}"
    yield ""
    yield f"{way.title[0].upper()}{way.title[1:]}: the guest gets {way.gives}. [The lane]({page})."
    yield ""
    yield "| | answer | why | shown by |"
    yield "| --- | --- | --- | --- |"
    for one in Operation:
        found = cell(way, one)
        shown = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in found.evidence)
        yield f"| {one} | {found.answer} | {found.why} | {shown} |"
