"""`nvlane detach`: take a lane out of a running machine."""

from __future__ import annotations

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@arguments.lane
@common
def detach(output: Output, machine: str, lane: str) -> None:
    """Unplug a lane from a running machine, and undo what was done on the host for it alone.

    The guest must let the device go: unmount it there first.
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.plug import detach as plug_out
    from nvlane.cli.service.record import as_json
    from nvlane.cli.service.world import this_world

    with Lines(output) as tell:
        record = plug_out(this_world(), machine, lane, tell)
    if output.json:
        output.data({**as_json(record), "detached": lane}, str)
    else:
        output.say(f"{lane} is detached from {machine}")
