"""`nvlane resize`: another size for a disk of a running machine."""

from __future__ import annotations

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@arguments.disk
@click.argument("size", metavar="SIZE")
@click.option("--shrink", is_flag=True, help="Make it smaller: what is beyond the new end is lost.")
@common
def resize(output: Output, machine: str, disk: str, size: str, shrink: bool) -> int:
    """Give DISK of a running MACHINE another size, as 10GiB; its guest is told.

    The disk of a vhost-user lane is resized by its target (file, malloc, null).
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.limits import resize as change
    from nvlane.cli.service.world import this_world
    from nvlane.model.size import format_size, parse_size

    try:
        wanted = parse_size(size)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with Lines(output) as tell:
        done = change(this_world(), machine, disk, wanted, tell, shrink=shrink)
    if output.json:
        output.data(done, str)
    else:
        output.say(f"{done.disk} has {format_size(done.now)} now, and had {format_size(done.was)}")
        output.say(f"  the next up must not contradict that: {done.spec}")
    return 0
