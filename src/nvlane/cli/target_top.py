"""`nvlane target top`: what a target does, look after look."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from nvlane.cli.output import Output
from nvlane.cli.service.target_view import Watch
from nvlane.cli.target_words import HEADINGS, rows, top_text
from nvlane.model.codec import encode
from nvlane.targets.rates import Rates
from nvlane.wire.pause import pause

if TYPE_CHECKING:
    from rich.table import Table

Look = tuple[Rates, Sequence[Mapping[str, Any]]]


def show_top(output: Output, name: str, *, interval: float, count: int | None) -> None:
    """A live table on a terminal; one look, or `count`, everywhere else."""
    live = sys.stdout.isatty() and not output.json
    with Watch(name) as watch:
        looks = _looks(watch, interval, count if live else count or 1)
        if live:
            _draw(name, looks)
            return
        for rates, controllers in looks:
            value = {"target": name, **encode(rates), "controllers": list(controllers)}
            click.echo(json.dumps(value) if output.json else top_text(name, rates, controllers))


def _looks(watch: Watch, interval: float, count: int | None) -> Iterator[Look]:
    done = 0
    while count is None or done < count:
        pause(interval)
        yield watch.rates(), watch.controllers()
        done += 1


def _draw(name: str, looks: Iterator[Look]) -> None:
    from rich.live import Live

    with Live(auto_refresh=False, screen=False) as live:
        try:
            for look in looks:
                live.update(_table(name, *look), refresh=True)
        except KeyboardInterrupt:
            return  # that is how a person ends it


def _table(name: str, rates: Rates, controllers: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table

    busy = "  ".join(f"core {reactor.core}: {reactor.busy:4.0%}" for reactor in rates.reactors)
    guests = sum(len(controller["sessions"]) for controller in controllers)
    drawn = Table(title=f"{name}   {len(controllers)} controllers, {guests} guests   {busy}", title_justify="left")
    for heading in HEADINGS:
        drawn.add_column(heading, justify="left" if heading == "BDEV" else "right")
    for row in rows(rates):
        drawn.add_row(*row)
    return drawn
