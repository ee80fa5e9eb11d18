"""`nvlane attach`: one more lane for a running machine."""

from __future__ import annotations

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@click.argument("lane_file", metavar="LANE.toml", type=arguments.spec_file)
@arguments.no_verify
@arguments.timeout
@common
def attach(output: Output, machine: str, lane_file: str, no_verify: bool, timeout: float) -> int:
    """Plug one more lane into a running machine. LANE.toml holds one [[lane]] table and nothing else."""
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.plug import attach as plug_in
    from nvlane.cli.service.record import as_json
    from nvlane.cli.service.verify import raise_for_evidence
    from nvlane.cli.service.world import this_world
    from nvlane.cli.spec_files import read_file
    from nvlane.spec.lane import LaneKind

    with Lines(output) as tell:
        record, lane = plug_in(
            this_world(), machine, read_file(lane_file), tell, check_guest=not no_verify, deadline=timeout
        )
    value = {**as_json(record), "attached": lane.name}
    if output.json:
        output.data(value, str)
        return 0 if value["verified"] is not False else 4
    stays = lane.kind == LaneKind.NVDIMM  # QEMU lets no persistent memory go
    out = (
        f"it stays until nvlane down {machine}" if stays else f"nvlane detach {machine} {lane.name} takes it out again"
    )
    output.say(f"{lane.name} is attached to {machine}; {out}")
    raise_for_evidence(record)
    return 0
