"""The options that verbs have for libvirt domains, and the question that comes before a definition is changed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from nvlane.cli.output import Output

if TYPE_CHECKING:
    from nvlane.cli.service.domain import Offer

connect = click.option(
    "-c", "--connect", metavar="URI", default=None,
    help="libvirt's connection URI, as virsh has it (qemu:///system): the machine is a libvirt domain.",
)  # fmt: skip
print_diff = click.option(
    "--print-diff", is_flag=True, help="Only show how the domain's XML would change; change nothing."
)
yes = click.option("-y", "--yes", is_flag=True, help="Do not ask before a libvirt domain is changed.")
agreed = click.option(
    "--agreed", metavar="DIGEST", default="", hidden=True,
    help="The yes to what was shown elsewhere: nothing is changed where it is no longer the same.",
)  # fmt: skip
on_host = click.option(
    "-c", "--connect", metavar="URI", default=None,
    help="The libvirt of another host (qemu+ssh://…): its nvlane is asked.",
)  # fmt: skip
live = click.option("--live", is_flag=True, help="Change the libvirt domain that runs.")
config = click.option("--config", is_flag=True, help="Change the libvirt domain's definition, for its next start.")


def asked(function: Callable[..., Any]) -> Callable[..., Any]:
    """--print-diff and --yes, and the yes that was said on another host."""
    return print_diff(yes(agreed(function)))


class Question:
    """Shows an offer and asks for a yes."""

    def __init__(self, output: Output, *, print_diff: bool, yes: bool, agreed: str = "") -> None:
        """`agreed` is the digest of the offer that a yes was said to already."""
        self._output = output
        self.print_diff = print_diff
        self.yes = yes
        self._agreed = agreed
        self._diff = ""
        self._plugs: tuple[str, ...] = ()

    def __call__(self, offer: Offer) -> bool:
        from nvlane.model.errors import HostError

        self._diff, self._plugs = offer.diff, offer.plugs
        if self._agreed:
            if self._agreed != offer.digest:
                raise HostError(
                    f"the domain {offer.name} was changed since the diff was shown; nothing is done",
                    remedy="do it again, and look at the new diff",
                )
            return True
        for note in offer.notes:
            self._output.say(f"note: {note}")
        if not self._output.json and (self.print_diff or not self.yes):
            _show(offer)
        if self.print_diff:
            return False
        if self.yes or not (offer.diff or offer.plugs):
            return True
        if not sys.stdin.isatty():
            raise HostError(
                f"the domain {offer.name} is changed only on a yes, and there is no terminal to ask on",
                remedy="look at it with --print-diff, then add --yes",
            )
        what = (
            f"Define '{offer.name}' with the changed XML?"
            if offer.diff
            else f"Plug it into the running '{offer.name}'?"
        )
        return _answer(what)

    def nothing_done(self, domain: str) -> int:
        """The end of a verb that was only to show, or was answered with no: the exit status."""
        if self._output.json:
            self._output.data({"domain": domain, "diff": self._diff, "plugs": self._plugs, "changed": False}, str)
        if self.print_diff:
            return 0
        self._output.say("Aborted, nothing was changed")
        return 1


def _show(offer: Offer) -> None:
    if offer.diff:
        click.echo(offer.diff)
        click.echo()
    for plug in offer.plugs:
        click.echo(plug)
    if offer.plugs:
        click.echo()


def _answer(question: str) -> bool:
    while True:
        word = click.prompt(f"{question} (y/n)", prompt_suffix=": ", err=True).strip().lower()
        if word in ("y", "yes"):
            return True
        if word in ("n", "no"):
            return False
