"""`nvlane backup`: what a disk holds at this moment, whole or what changed."""

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
    "--bitmap",
    default="",
    metavar="NAME",
    help="Note what changes from now on; when it is there, copy only what it notes.",
)
@click.option(
    "--base",
    default=None,
    type=click.Path(resolve_path=True, dir_okay=False),
    metavar="FILE",
    help="The backup before, which an incremental one rests on.",
)
@arguments.no_freeze
@common  # fmt: skip
def backup(
    output: Output, machine: str, disk: str, to: str, fmt: str | None, erase: str, speed: int, bitmap: str,
    base: str | None, no_freeze: bool,
) -> int:  # fmt: skip
    """Copy what DISK of a running MACHINE holds at this moment, while its guest goes on.

    With --bitmap the first is a full one, and each one after it holds what changed since the last (--base names that).
    A guest agent is asked to write out and freeze the file systems at that moment. Ctrl-C removes the new file.

    \b
    nvlane backup db1 data --to mon.qcow2 --bitmap week
    nvlane backup db1 data --to tue.qcow2 --bitmap week --base mon.qcow2
    """
    from nvlane.cli.service.copies import Wanted
    from nvlane.cli.service.copies import backup as copy
    from nvlane.cli.service.world import this_world

    wanted = Wanted(
        disk=disk, to=to, format=fmt or "", erase=erase, speed=speed, bitmap=bitmap,
        base=base or "", freeze=not no_freeze,
    )  # fmt: skip
    with copy_words.CopyLines(output) as tell:
        done = copy(this_world(), machine, wanted, tell, tell.watch)
    if output.json:
        output.data(done, str)
        return 0
    how = "file systems frozen at that moment" if done.frozen else "as after a power failure at that moment"
    output.say(f"{to} is a {done.state} backup of {disk} ({how})")
    if bitmap:
        where = (
            "and is kept in the image" if done.kept_in_image else "and is lost with the machine: a raw image has none"
        )
        output.say(f"  the bitmap {bitmap} notes what changes from then on, {where}")
    return 0
