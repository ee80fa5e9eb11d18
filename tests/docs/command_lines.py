"""Commands of the handbook, checked by nvlane's own command line: verbs, options, choices, number of arguments."""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterator, Sequence

import click

from nvlane.cli.main import cli

_BEFORE = {"sudo", "env", "nice", "time"}
#: Types of which any value can be checked without a host.
_PURE = (click.Choice, click.IntRange, click.FloatRange, type(click.INT), type(click.FLOAT))


def nvlane_calls(words: str) -> Iterator[list[str]]:
    """The arguments of each `nvlane` in a line of shell, also of those that are run in the lab or between $( and )."""
    for inner in re.findall(r"\$\(([^()]*)\)", words):
        yield from nvlane_calls(inner)
    lexer = shlex.shlex(words, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    simple: list[str] = []
    for token in [*lexer, ";"]:
        if token in {";", "&&", "||", "|", "&", ">", "<", ">>"}:
            yield from _calls(simple)
            simple = []
        else:
            simple.append(token)


def _calls(argv: Sequence[str]) -> Iterator[list[str]]:
    words = list(argv)
    while words and (words[0] in _BEFORE or re.match(r"[A-Z_]+=", words[0])):
        words.pop(0)
    if not words or words[0].rpartition("/")[2] != "nvlane":
        return
    yield words[1:]
    if words[1:3] == ["lab", "run"]:
        rest = words[3:]
        while rest and rest[0].startswith("--"):
            rest = rest[1:] if rest[0] == "--" or "=" in rest[0] else rest[2:]
        yield from _calls(rest)


def complaint(arguments: Sequence[str], *, whole: bool = True) -> str:
    """What nvlane's command line would say of these arguments, or nothing. `whole`: every argument has to be there."""
    command: click.Command = cli
    context = click.Context(cli, info_name="nvlane", **cli.context_settings)
    rest = list(arguments)
    try:
        while isinstance(command, click.Group) and rest and rest[0] not in ("--help", "-h", "--version"):
            name, found, rest = command.resolve_command(context, rest)
            if found is None:
                return f"there is no verb {name}"
            command, context = found, click.Context(found, info_name=name, parent=context)
        if isinstance(command, click.Group) and not rest:
            return "a verb is missing" if whole else ""
        _parse(command, context, rest, whole)
    except click.UsageError as error:
        return error.format_message()
    return ""


def _parse(command: click.Command, context: click.Context, arguments: list[str], whole: bool) -> None:
    parser = command.make_parser(context)
    if not whole:
        # Prose names an option, and leaves the rest to the reader.
        named = [word.partition("=")[0] for word in arguments if word.startswith("-") and word != "-"]
        known = {name for parameter in command.get_params(context) for name in parameter.opts}
        for name in named:
            if name not in known:
                raise click.NoSuchOption(name)
        return
    given, left, _ = parser.parse_args(list(arguments))
    if left:
        raise click.UsageError(f"unexpected arguments {left}")
    if given.get("help"):
        return
    for parameter in command.get_params(context):
        value = given.get(parameter.name)
        if _is_missing(value):
            if parameter.required:
                raise click.UsageError(f"{parameter.name} is missing")
        elif isinstance(parameter.type, _PURE):
            parameter.type_cast_value(context, value)


def _is_missing(value: object) -> bool:
    """click's parser has None for what was not given, or, since 8.3, a mark of its own, which is an enum."""
    return value is None or value == () or isinstance(value, enum.Enum)
