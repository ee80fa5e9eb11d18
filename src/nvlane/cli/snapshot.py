"""`nvlane snapshot`: keep what a disk holds now, and go on above it."""

from __future__ import annotations

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@arguments.disk
@click.option("--to", required=True, type=click.Path(resolve_path=True), metavar="FILE",
              help="The new image (qcow2), which the guest writes to from now on.")  # fmt: skip
@arguments.no_freeze
@common
def snapshot(output: Output, machine: str, disk: str, to: str, no_freeze: bool) -> int:
    """Keep what DISK of a running MACHINE holds now in the image that it is on; the guest goes on in a new one above.

    DISK is a lane, LANE:NSID for one of several namespaces, or 'boot'. A guest agent is asked to write out and freeze
    the file systems meanwhile. Both files are needed from then on: never write to the lower one.
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.snapshot import take_snapshot
    from nvlane.cli.service.world import this_world

    with Lines(output) as tell:
        done = take_snapshot(this_world(), machine, disk, to, tell, freeze=not no_freeze)
    if output.json:
        output.data(done, str)
        return 0
    how = "its file systems were frozen" if done.frozen else "as after a power failure: no guest agent froze it"
    output.say(f"{machine} writes {done.disk} to {done.now}; {done.was} stays as it was ({how})")
    output.say(f"  the next up must name it: {done.spec}")
    return 0
