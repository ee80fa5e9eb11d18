"""`nvlane bench`: the lanes compared on this machine, by fio in the guest; and two measurements compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common

if TYPE_CHECKING:
    from nvlane.bench.jobs import Job
    from nvlane.cli.service.bench_plan import Asked

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("spec", metavar="[SPEC]", required=False, type=arguments.spec_file)
@click.option(
    "--lanes",
    default="all",
    metavar="all|LIST",
    show_default=True,
    help="Kinds of lane, or names of the spec's lanes, with commas between.",
)
@click.option("--jobs", metavar="LIST", default="", help="Only these jobs, with commas between: randread-4k-1, read, …")
@click.option("--quick", is_flag=True, help="Four jobs, two seconds each, in three rounds.")
@click.option(
    "--rounds", type=click.IntRange(1, 50), metavar="N", help="How often each lane has its turn. [default: 5]"
)
@click.option(
    "--runtime",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="How long each job runs each time. [default: 10]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes of fio, each with the depth of the job.",
)
@click.option("--read-only", is_flag=True, help="Only jobs that read.")
@click.option("--writes-to", default="", metavar="DRIVE", help="The drive or file again: what is on it may be lost.")
@click.option(
    "--output",
    "output_file",
    type=_FILE,
    metavar="FILE",
    help="The result, and where it is gone on. [default: NAME-bench.json]",
)
@click.option("--fresh", is_flag=True, help="Begin anew, whatever the file holds.")
@click.option("--compare", nargs=2, type=_FILE, metavar="A.json B.json", help="Compare two results; nothing is run.")
@arguments.timeout
@common
def bench(
    output: Output, spec: str | None, lanes: str, jobs: str, quick: bool, rounds: int | None, runtime: float | None,
    workers: int, read_only: bool, writes_to: str, output_file: Path | None, fresh: bool,
    compare: tuple[Path, Path] | None, timeout: float,
) -> int:  # fmt: skip
    """Measure the lanes on the storage of SPEC: one drive, or one raw file. The machine of SPEC is started without a
    lane and then has the storage by one lane after the other, round after round, while fio runs in its guest.

    Every run is kept at once in the result file. The same command after an interruption goes on from there. A drive
    that holds data is written to only when it is named again with --writes-to. `nvlane report FILE` makes a page of
    the result.
    """
    if compare is not None:
        if spec is not None:
            raise click.UsageError("--compare takes two results and no SPEC")
        return _compare(output, *compare)
    if spec is None:
        raise click.UsageError("name a SPEC, or two results with --compare")
    from nvlane.cli.service.bench_plan import Asked

    wanted = _jobs(jobs, quick=quick, workers=workers, read_only=read_only)
    asked = Asked(
        lanes=() if lanes == "all" else tuple(lanes.split(",")),
        jobs=wanted,
        rounds=rounds or (3 if quick else 5),
        milliseconds=round(1000 * (runtime or (2 if quick else 10))),
        writes_to=writes_to,
    )
    return _measure(output, spec, asked, output_file, fresh=fresh, timeout=timeout)


def _jobs(names: str, *, quick: bool, workers: int, read_only: bool) -> tuple[Job, ...]:
    from nvlane.bench.jobs import chosen, full_set, quick_set

    if names:
        wanted = chosen(names.split(","), workers)
    else:
        wanted = quick_set(workers) if quick else full_set(workers)
    if read_only:
        wanted = tuple(job for job in wanted if not job.pattern.writes)
    if not wanted:
        raise click.UsageError("--read-only leaves none of these jobs")
    return wanted


def _measure(output: Output, spec: str, asked: Asked, output_file: Path | None, *, fresh: bool, timeout: float) -> int:
    from nvlane.bench.summary import orders, rows
    from nvlane.cli.bench_words import result_words
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.bench import measure
    from nvlane.cli.service.bench_file import open_or_begin
    from nvlane.cli.service.bench_plan import prepare
    from nvlane.cli.service.world import this_world
    from nvlane.cli.spec_files import read_file

    world = this_world()
    file = read_file(spec)
    with Lines(output) as tell:
        prepared = prepare(world, file, asked, tell)
        path = output_file or Path(f"{prepared.name}-bench.json")
        kept = open_or_begin(path, prepared.result, fresh=fresh)
        if kept.result.samples:
            output.say(f"going on with {path}: {len(kept.result.samples)} runs of it are done")
        result = measure(world, prepared, kept, tell, deadline=timeout)
    value = {
        "file": str(path),
        "complete": result.complete,
        "caveats": result.where.caveats,
        "rows": rows(result),
        "orders": () if result.where.caveats else orders(result),
    }
    output.data(value, lambda: result_words(result))
    output.say(f"nvlane report {path} makes a page of it")
    return 0


def _compare(output: Output, before: Path, after: Path) -> int:
    from nvlane.bench.compare import compare
    from nvlane.cli.bench_words import comparison_words
    from nvlane.cli.service.bench_file import load

    first, second = load(before), load(after)
    found = compare(first, second)
    output.data(found, lambda: comparison_words(found, (*first.where.caveats, *second.where.caveats)))
    return 0
