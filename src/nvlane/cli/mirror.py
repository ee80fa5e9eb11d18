"""`nvlane mirror`: a disk to another place while its guest writes."""

from __future__ import annotations

import click

from nvlane.cli import arguments, copy_words
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@arguments.disk
@copy_words.to
@copy_words.image_format
@copy_words.erase
@copy_words.speed
@click.option(
    "--sync",
    type=click.Choice(["full", "top", "none"]),
    default="full",
    show_default=True,
    help="Copy all; what the topmost image holds; or only what is written from now on.",
)
@click.option(
    "--then",
    type=click.Choice(["complete", "stop", "wait"]),
    default="complete",
    show_default=True,
    help="When the copy is the same: go on there; leave it as a whole copy; or leave the job running.",
)
@common  # fmt: skip
def mirror(
    output: Output, machine: str, disk: str, to: str, fmt: str | None, erase: str, speed: int, sync: str, then: str
) -> int:
    """Copy DISK of a running MACHINE to another place and keep the copy the same; then go on there.

    Ctrl-C cancels it: the guest stays where it is, and the new file is removed. A job that was left running (--then
    wait) is completed, stopped or cancelled by `nvlane jobs`.
    """
    from nvlane.cli.service.copies import Then, Wanted
    from nvlane.cli.service.copies import mirror as copy
    from nvlane.cli.service.world import this_world

    if sync != "full" and then != "wait":
        raise click.UsageError(f"--sync {sync} makes no whole copy: only --then wait makes sense of it")
    wanted = Wanted(disk=disk, to=to, format=fmt or "", sync=sync, erase=erase, speed=speed)
    with copy_words.CopyLines(output) as tell:
        done = copy(this_world(), machine, wanted, Then(then), tell, tell.watch)
    if output.json:
        output.data(done, str)
    elif done.moved is not None:
        copy_words.say_moved(output, machine, done.moved)
    elif done.state == "ready":
        output.say(f"{done.id}: {to} is kept the same; nvlane jobs {machine} --complete {done.id} goes over to it")
    else:
        output.say(f"{to} is a whole copy of {disk}; {machine} goes on where it was")
    return 0
