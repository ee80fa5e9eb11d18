"""`nvlane`: finds the verb, runs it, and turns every error into one message and an exit status."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import click

from nvlane import __version__
from nvlane.cli.output import Output
from nvlane.cli.verbs import SECTIONS, VERBS
from nvlane.model.errors import NvlaneError, SpecError

EPILOG: Final = (
    "Exit status: 0 done, 1 failed, 2 usage or spec error, 3 refused as unsafe, 4 verification failed,"
    " 5 something could not be put back, 130 interrupted (143: by SIGTERM)."
)


class LazyGroup(click.Group):
    """A group whose verbs are imported when they are called.

    The parameters' names are click's, which passes some of them by keyword."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, attribute = verb.place.split(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{verb.place} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        for heading, verbs in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(verb.name, verb.words) for verb in verbs])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            from nvlane.spec.nearest import nearest

            ctx.fail(f"there is no verb '{args[0]}'{nearest(args[0], VERBS)}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nvlane", message="%(prog)s %(version)s")
def cli() -> None:
    """Give a virtual machine NVMe storage or persistent memory by every lane there is, prove it from inside the
    guest, and put the host back.

    Start with `nvlane doctor`, then `nvlane plan SPEC`; without hardware, with `nvlane demo`.
    """


def run(arguments: Sequence[str] | None = None) -> NoReturn:
    """The program. Ends the process with the exit status of the verb."""
    output = Output()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        status = _guarded(list(sys.argv[1:] if arguments is None else arguments), output)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our stdout has gone (`nvlane devices | head`): nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141  # as a shell says of a program that died of SIGPIPE
    sys.exit(status)


class Terminated(KeyboardInterrupt):
    """SIGTERM: as with Ctrl-C, what was begun is undone first."""


def _terminate(number: int, frame: object) -> NoReturn:  # noqa: ARG001 - the handler's signature is Python's
    raise Terminated


def _guarded(arguments: list[str], output: Output) -> int:
    try:
        status = cli.main(arguments, prog_name="nvlane", standalone_mode=False, obj=output)
    except click.UsageError as error:
        remedy = f"see {error.ctx.command_path} --help" if error.ctx else ""
        return _fail(output, SpecError(error.format_message(), remedy=remedy), arguments)
    except click.ClickException as error:
        return _fail(output, NvlaneError(error.format_message()), arguments)
    except NvlaneError as error:
        return _fail(output, error, arguments)
    except (click.Abort, KeyboardInterrupt) as error:
        terminated = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        return _interrupted(output, 143 if terminated else 130)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the one place where a bug becomes words instead of a traceback
        return _bug(output, error)
    return status if isinstance(status, int) else 0


def _fail(output: Output, error: NvlaneError, arguments: Sequence[str]) -> int:
    if os.environ.get("NVLANE_DEBUG") == "1":
        _traceback()
    if output.json or "--json" in arguments:
        value = {
            "kind": type(error).__name__,
            "message": error.message,
            "remedy": error.remedy,
            "exit_status": error.exit_status,
            **error.details(),
        }
        click.echo(json.dumps({"error": value}, indent=2, ensure_ascii=False))
    label = click.style("nvlane:", fg="red", bold=True)
    click.echo(f"{label} {error}", err=True)
    return error.exit_status


def _interrupted(output: Output, status: int) -> int:
    from nvlane.cli.leftovers import leftover_words

    output.warn("\nnvlane: interrupted")
    for words in leftover_words():
        output.warn(f"  {words}")
    return status


def _bug(output: Output, error: Exception) -> int:
    if os.environ.get("NVLANE_DEBUG") == "1":
        _traceback()
    from nvlane.model.errors import Bug

    words = f"this is a bug in nvlane: {type(error).__name__}: {error}"
    remedy = f"please report it with the output of NVLANE_DEBUG=1 nvlane … (nvlane {__version__})"
    return _fail(output, Bug(words, remedy=remedy), ())


def _traceback() -> None:
    import traceback

    traceback.print_exc()
