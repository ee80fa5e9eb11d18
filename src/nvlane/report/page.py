"""The page: words and tables around the plots. Everything that comes from a file is escaped."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources

from nvlane.bench.jobs import Job, Pattern
from nvlane.bench.result import Result
from nvlane.bench.series import in_words
from nvlane.bench.statistics import Interval
from nvlane.bench.summary import Order, Row, orders, rows
from nvlane.model.size import format_size
from nvlane.report import plots

_WORDS = {
    Pattern.RANDOM_READ: "random reads",
    Pattern.RANDOM_WRITE: "random writes",
    Pattern.RANDOM_MIXED: "random reads and writes, half and half",
    Pattern.READ: "sequential reads",
    Pattern.WRITE: "sequential writes",
}


def page(result: Result) -> str:
    """The whole page. Raises HostError without matplotlib."""
    plots.need_matplotlib()
    seen = rows(result)
    style = (resources.files("nvlane.report") / "page.css").read_text(encoding="utf-8")
    title = f"Lanes of {result.where.hostname}: {result.where.storage}"
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            _caveats(result),
            _where(result),
            _orders(result),
            *(_pattern(result, seen, pattern) for pattern in Pattern if _jobs(result, pattern)),
            _lanes(result),
            _how(result),
        ]
    )
    return (
        "<!doctype html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _caveats(result: Result) -> str:
    parts = list(result.where.caveats)
    if not parts and result.complete:
        return ""
    words = []
    if parts:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in parts)
        words.append(
            "<p><strong>These numbers say nothing about the speed of any lane.</strong> This report shows that the"
            f" measurement works, and no conclusion about speed may be drawn from it:</p><ul>{reasons}</ul>"
        )
    if not result.complete:
        words.append("<p>The measurement is not complete: the same <code>nvlane bench</code> goes on with it.</p>")
    return f'<section class="caveat" role="note">{"".join(words)}</section>'


def _where(result: Result) -> str:
    where, series = result.where, result.series
    taken = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(result.started)) if result.started else "unknown"
    told = {
        "host": f"{where.hostname}, Linux {where.kernel}",
        "processor": f"{where.processor or 'unknown'}, {where.cpus} processors",
        "storage": where.storage,
        "virtual machine": f"QEMU {where.qemu} under {where.accelerator}; {where.guest}",
        "measured": f"{taken}, with {result.fio or 'fio'}, by nvlane {result.nvlane}",
        "series": f"{series.rounds} rounds, {in_words(series.milliseconds / 1000)} for each job",
    }
    lines = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in told.items())
    return f"<dl>{lines}</dl>"


def _orders(result: Result) -> str:
    if result.where.caveats:
        return ""
    found = orders(result)
    if not found:
        return ""
    verdicts = {True: "holds", False: "does not hold", None: "is left open"}
    lines = [[order.job, _chain(order), verdicts[order.holds]] for order in found]
    return (
        "<section><h2>Does the expected order hold here?</h2><p>Under dense I/O one expects passthrough to be fastest,"
        " then vhost-user, userspace and emulated. It holds where each lane is slower than the one before with 95 %"
        " confidence, does not hold where one is faster, and is left open where the rounds do not tell.</p>"
        f"{_table(('job', 'IOPS of each as a part of the one before', 'the order'), lines)}</section>"
    )


def _chain(order: Order) -> str:
    return ", ".join(f"{second} {_interval(interval)} of {first}" for first, second, interval in order.pairs)


def _jobs(result: Result, pattern: Pattern) -> list[Job]:
    return [job for job in result.series.jobs if job.pattern is pattern]


def _pattern(result: Result, seen: Sequence[Row], pattern: Pattern) -> str:
    """One kind of load: its plots over the depth, those of its deepest job, and its table."""
    jobs = [job for job in _jobs(result, pattern) if any(row.job == job.name for row in seen)]
    if not jobs:
        return ""
    deepest = max(jobs, key=lambda job: job.depth)
    drawn = []
    if len(jobs) > 1:
        drawn += [
            ("IOPS by depth", plots.by_depth(result, seen, jobs, "iops")),
            ("Median latency by depth", plots.by_depth(result, seen, jobs, "50")),
            ("99th percentile of latency by depth", plots.by_depth(result, seen, jobs, "99")),
        ]
    drawn += [
        (f"IOPS beside the fastest lane, {deepest.name}", plots.to_fastest(result, seen, deepest)),
        (f"Latency of all I/Os, {deepest.name}", plots.spread(result, deepest)),
        (f"Processor time for each I/O, {deepest.name}", plots.cost(seen, deepest)),
    ]
    figures = "".join(
        f'<figure role="img" aria-label="{escape(name)}">{svg}<figcaption>{escape(name)}</figcaption></figure>'
        for name, svg in drawn
    )
    size = format_size(jobs[0].block_size).replace("iB", " iB").replace("K i", " Ki")
    return (
        f"<section><h2>{escape(size)} {_WORDS[pattern]}</h2>"
        f'<div class="figures">{figures}</div>{_rows(row for row in seen if row.job in {job.name for job in jobs})}'
        "</section>"
    )


def _rows(seen: Iterable[Row]) -> str:
    lines = [
        [
            row.job,
            row.lane,
            f"{row.iops:,.0f}",
            f"{row.bytes_a_second / (1 << 20):,.1f}",
            *(f"{value:,.0f}" for value in row.latency.values()),
            *(f"{value:,.1f}" for value in (row.cost.qemu, row.cost.target, row.cost.kernel, row.cost.vcpus)),
            f"{row.cost.host_busy:,.1f}",
            _interval(row.to_fastest),
        ]
        for row in seen
    ]
    headings = (
        *("job", "lane", "IOPS", "MiB/s", "p50 µs", "p90 µs", "p99 µs", "p99.9 µs"),
        *("QEMU µs/IO", "target µs/IO", "kernel µs/IO", "vCPUs µs/IO", "host busy µs/IO", "of the fastest"),
    )
    return _table(headings, lines)


def _interval(interval: Interval) -> str:
    if interval.low == interval.high:
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} ({interval.low:.2f}–{interval.high:.2f})"


def _table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table that scrolls in its own frame: the page stays as wide as the screen."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headings)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>" for line in lines)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _lanes(result: Result) -> str:
    parts = [f"<h3>{escape(lane.name)}</h3><pre>{escape(lane.table)}</pre>" for lane in result.series.lanes]
    return (
        f"<section><h2>The lanes, as they were measured</h2><pre>{escape(result.series.machine)}</pre>"
        f"{''.join(parts)}</section>"
    )


def _how(result: Result) -> str:
    lanes = ", ".join(lane.name for lane in result.series.lanes)
    return (
        "<section><h2>How to read this</h2><ul>"
        f"<li>The storage was given to one running guest by one lane after the other ({escape(lanes)}), round after"
        " round, so that drift meets all lanes alike. After each change a warm-up ran that is not counted.</li>"
        "<li>IOPS and MiB/s are medians over the rounds. Percentiles are of the I/Os of all rounds together, from"
        " fio's histograms, whose bins are 1.6 % wide.</li>"
        "<li>The interval beside a ratio holds it with 95 % confidence: the bootstrap over rounds, with every resample"
        " counted. Few rounds make wide intervals, and a single round has none.</li>"
        "<li>Processor time is the host's, for each I/O: QEMU without its vCPUs, the target, storage threads of the"
        " kernel, and the vCPUs, in which the guest with fio runs. “Host busy” is everything that ran on the host,"
        " also for others, as its timer tick counts it.</li></ul></section>"
    )
