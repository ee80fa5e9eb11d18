"""`nvlane report`: one page of a measurement."""

from __future__ import annotations

from pathlib import Path

import click

from nvlane.cli.output import Output, common

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("result", metavar="RESULT.json", type=_FILE)
@click.option("--output", "-o", "page_file", type=_FILE, metavar="FILE", help="The page. [default: RESULT.html]")
@common
def report(output: Output, result: Path, page_file: Path | None) -> int:
    """Make a page of what `nvlane bench` measured: tables, plots, and whether the expected order of lanes holds here.

    The page is one HTML file that needs no network and runs no script. A measurement made in the lab or under TCG
    says so at the top, and no conclusion about speed is drawn. The plots need matplotlib: pip install
    'nvlane[report]'.
    """
    from nvlane.cli.service.bench_file import load
    from nvlane.model.errors import HostError
    from nvlane.report.page import page

    text = page(load(result))
    place = page_file or result.with_suffix(".html")
    try:
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HostError(f"cannot write {place}: {error.strerror}", remedy="name another --output") from error
    output.data({"page": str(place)}, lambda: str(place))
    return 0
