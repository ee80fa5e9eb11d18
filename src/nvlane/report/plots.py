"""The plots of a page, as SVG text. matplotlib is an extra (`nvlane[report]`) and imported when a plot is drawn.

Text stays text: a page is searched, read aloud and enlarged. Lanes keep their colour in every plot; the colours are
told apart by people who see no red or green (Okabe and Ito, Color Universal Design).
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from nvlane.bench.fio import merged
from nvlane.bench.jobs import Job
from nvlane.bench.latency import distribution
from nvlane.bench.result import Result
from nvlane.bench.summary import Row
from nvlane.model.errors import HostError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKS: Final = "osD^vPX"
#: Inches; small enough that text of 9 points can be read where the plot is as wide as a phone.
_SIZE: Final = (4.6, 3.1)
_SETTINGS: Final = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nvlane",  # the same result gives the same page
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def need_matplotlib() -> None:
    """Raises HostError with the remedy where it is missing."""
    if not available():
        raise HostError("the plots need matplotlib, which is not installed", remedy="pip install 'nvlane[report]'")


def by_depth(result: Result, rows: Sequence[Row], jobs: Sequence[Job], what: str) -> str:
    """IOPS ('iops'), or a percentile of the latency ('50', '99'), over the depth; a line for each lane."""

    from matplotlib.ticker import NullLocator

    def draw(axes: Axes) -> None:
        found = {(row.lane, row.job): row for row in rows}
        for number, lane in enumerate(_lanes(result)):
            points = [
                (job.depth, row.iops if what == "iops" else row.latency[what])
                for job in jobs
                if (row := found.get((lane, job.name))) is not None
            ]
            axes.plot(*zip(*points, strict=True), **_style(number), label=lane) if points else None
        depths = sorted({job.depth for job in jobs})
        axes.set_xscale("log", base=2)
        _logarithmic(axes, "y")
        axes.set_xticks(depths, [str(depth) for depth in depths])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel("I/Os in flight")
        axes.set_ylabel("IOPS" if what == "iops" else f"latency, p{what} (µs)")

    return _svg(draw, f"{what}-{jobs[0].name}")


def cost(rows: Sequence[Row], job: Job) -> str:
    """Processor time of the host for each I/O, by who spent it; a bar for each lane."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    def draw(axes: Axes) -> None:
        here = [row for row in rows if row.job == job.name]
        parts: Mapping[str, list[float]] = {
            "QEMU": [row.cost.qemu for row in here],
            "target": [row.cost.target for row in here],
            "kernel threads": [row.cost.kernel for row in here],
            "the guest's vCPUs": [row.cost.vcpus for row in here],
        }
        left = [0.0] * len(here)
        names = [row.lane for row in here]
        for (name, values), shade in zip(parts.items(), (*_COLOURS[:3], "#bbbbbb"), strict=True):
            axes.barh(names, values, left=left, color=shade, label=name, height=0.6)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        axes.set_xlabel("µs of processor time for each I/O")

    return _svg(draw, f"cost-{job.name}")


def spread(result: Result, job: Job) -> str:
    """The distribution of latency: which part of I/Os took longer than so many microseconds."""

    def draw(axes: Axes) -> None:
        for number, lane in enumerate(_lanes(result)):
            times = merged([sample.latency for sample in result.of(lane, job.name)])
            points = [(time / 1000, 1 - part) for time, part in distribution(times)]
            # The last point is the slowest I/O: nothing took longer, and a logarithm has no zero.
            points = [(time, part) for time, part in points if part > 0]
            if points:
                axes.plot(*zip(*points, strict=True), color=_style(number)["color"], label=lane, drawstyle="steps-post")
        _logarithmic(axes, "x")
        _logarithmic(axes, "y")
        axes.set_xlabel("latency (µs)")
        axes.set_ylabel("part of I/Os that took longer")

    return _svg(draw, f"spread-{job.name}")


def to_fastest(result: Result, rows: Sequence[Row], job: Job) -> str:
    """IOPS as a part of those of the fastest lane, with the interval of 95 %."""

    def draw(axes: Axes) -> None:
        order = _lanes(result)
        for row in (row for row in rows if row.job == job.name):
            number = order.index(row.lane)
            seen = row.to_fastest
            errors = [[max(seen.value - seen.low, 0)], [max(seen.high - seen.value, 0)]]
            axes.errorbar([seen.value], [row.lane], xerr=errors, capsize=4, **_style(number))
        axes.invert_yaxis()
        axes.axvline(1, color="#888888", linewidth=0.8)
        axes.set_xlim(left=0)
        axes.set_xlabel("IOPS as a part of the fastest lane's")

    return _svg(draw, f"ratio-{job.name}", legend=False)


def _logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """A logarithmic axis with plain numbers at 1, 2 and 5: powers of ten alone leave short axes without a number."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_data_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if low > 0 and high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _lanes(result: Result) -> list[str]:
    return [lane.name for lane in result.series.lanes]


def _style(number: int) -> dict[str, Any]:
    return {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKS[number % len(_MARKS)]}


def _svg(draw: Callable[[Axes], None], name: str, *, legend: bool = True) -> str:
    """One plot, without the XML prologue, its names made its own: several stand in one page."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type] # its keys are a Literal of all that there are
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        draw(axes)
        if legend and axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        stream = io.StringIO()
        # A Figure of its own, without pyplot, needs no display and leaves nothing behind; no date: the same page again.
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    mark = re.sub(r"[^a-z0-9]+", "-", name.lower())
    text = re.sub(r'\bid="', f'id="{mark}-', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{mark}-", text)
    # The size is the page's business, and the view box keeps the proportions.
    head, body = text.split(">", 1)
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + body
