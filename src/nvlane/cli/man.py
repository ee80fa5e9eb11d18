"""`nvlane man`: the manual page, made from the same definitions as the command line."""

from __future__ import annotations

from collections.abc import Iterator

import click

from nvlane import __version__
from nvlane.cli.output import Output, common


@click.command()
@common
def man(output: Output) -> None:
    """Print the manual page (roff): nvlane man | man -l -"""
    text = page()
    output.data({"roff": text}, lambda: text)


def page() -> str:
    """The whole page, roff with the man macros (groff_man(7))."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    from nvlane.cli.main import EPILOG, cli
    from nvlane.cli.verbs import SECTIONS

    yield '.\\" Made by "nvlane man"; edit the command line instead.'
    yield f'.TH NVLANE 1 "" "nvlane {__version__}" "User Commands"'
    yield ".SH NAME"
    yield "nvlane \\- give a virtual machine NVMe storage or persistent memory, prove it, and put the host back"
    yield ".SH SYNOPSIS"
    yield ".B nvlane"
    yield ".I VERB"
    yield "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(cli.help or "")
    context = click.Context(cli, info_name="nvlane", **cli.context_settings)
    for heading, verbs in SECTIONS.items():
        yield f".SH {_escape(heading.upper())}"
        for verb in verbs:
            command = cli.get_command(context, verb.name)
            if command is not None:
                yield from _command(command, click.Context(command, context, f"nvlane {verb.name}"))
    yield ".SH EXIT STATUS"
    yield from _paragraphs(EPILOG)
    yield ".SH ENVIRONMENT"
    for name, words in _ENVIRONMENT.items():
        yield ".TP"
        yield f".B {name}"
        yield _escape(words)
    yield ".SH SEE ALSO"
    yield ".BR qemu (1),"
    yield ".BR qemu-storage-daemon (1),"
    yield ".BR nvme (1),"
    yield ".BR ndctl (1),"
    yield ".BR virsh (1)"


_ENVIRONMENT = {
    "NVLANE_STATE_DIR": "Where journals are kept: /var/lib/nvlane for root, else $XDG_STATE_HOME/nvlane.",
    "NVLANE_RUNTIME_DIR": "Where sockets and logs are: /run/nvlane for root, else $XDG_RUNTIME_DIR/nvlane.",
    "NVLANE_DEBUG": "Set to 1, errors come with a traceback.",
}


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    words = " ".join([context.info_name or "", *command.collect_usage_pieces(context)])
    yield f'.SS "{_escape(words)}"'
    yield from _paragraphs(command.help or "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and record[1] and "--help" not in record[0]:
            yield ".TP"
            yield f".B {_escape(record[0])}"
            yield _escape(record[1])
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _command(inner, click.Context(inner, context, f"{context.info_name} {name}"))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n"):
        verbatim = paragraph.startswith("\b")
        yield ".PP"
        if verbatim:
            yield ".nf"
            yield from (_escape(line) for line in paragraph.splitlines()[1:])
            yield ".fi"
        else:
            yield _escape(" ".join(paragraph.split()))


def _escape(text: str) -> str:
    """Text as roff takes it: no line may begin with a control character, and a minus is a minus."""
    safe = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return f"\\&{safe}" if safe.startswith((".", "'")) else safe
