"""What a verb says: data on stdout (text, or JSON with --json), people's words on stderr.

rich is imported only when there is a terminal to draw on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from nvlane.model.codec import encode


class Output:
    """One invocation's way to speak. `verbose` is 1 normally, 0 with -q, 2 and more with -v."""

    def __init__(self) -> None:
        self.json = False
        self.verbose = 1

    def data(self, value: object, text: Callable[[], str]) -> None:
        """The result of the verb: `value` as JSON, or the words of `text` for a person."""
        words = json.dumps(encode(value), indent=2, ensure_ascii=False) if self.json else text()
        if words:
            click.echo(words)

    def say(self, words: str) -> None:
        """Words for a person, not with -q."""
        if self.verbose > 0:
            click.echo(words, err=True)

    def detail(self, words: str) -> None:
        """Words that only -v shows."""
        if self.verbose > 1:
            click.echo(words, err=True)

    def warn(self, words: str) -> None:
        """Words that even -q shows."""
        click.echo(words, err=True)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they have to be, two spaces apart; a cell of several lines makes a row of several lines."""
    lines = [[list(headings)], *[_lines_of(row) for row in rows]]
    widths = [max(len(line[column]) for group in lines for line in group) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for group in lines
        for line in group
    )


def _lines_of(row: Sequence[str]) -> list[list[str]]:
    cells = [cell.split("\n") for cell in row]
    height = max(len(cell) for cell in cells)
    return [[cell[line] if line < len(cell) else "" for cell in cells] for line in range(height)]


def on_terminal() -> bool:
    """Whether stderr is a terminal, where progress may be drawn."""
    return sys.stderr.isatty()


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options that every verb has; the verb's first argument is the Output."""
    for option in reversed((_json, _quiet, _verbose)):
        function = option(function)
    return click.make_pass_decorator(Output, ensure=True)(function)


def _set_json(context: click.Context, _: click.Parameter, value: bool) -> None:
    context.ensure_object(Output).json |= value


def _set_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Output).verbose = 0


def _set_verbose(context: click.Context, _: click.Parameter, value: int) -> None:
    context.ensure_object(Output).verbose += value


_json = click.option(
    "--json", is_flag=True, is_eager=True, expose_value=False, callback=_set_json, help="The result as JSON on stdout."
)
_quiet = click.option(
    "-q", "--quiet", is_flag=True, is_eager=True, expose_value=False, callback=_set_quiet, help="Only errors and data."
)
_verbose = click.option(
    "-v", "--verbose", count=True, is_eager=True, expose_value=False, callback=_set_verbose, help="Say more."
)
