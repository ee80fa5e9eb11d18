"""`nvlane attach`: one more lane for a running machine, or for a libvirt domain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.domain_options import Question
from nvlane.cli.output import Output, common

if TYPE_CHECKING:
    from nvlane.cli.service.record import LaneRecord, MachineRecord


@click.command()
@arguments.machine
@click.argument("lane_file", metavar="LANE.toml", type=arguments.spec_file)
@domain_options.connect
@domain_options.live
@domain_options.config
@domain_options.asked
@arguments.no_verify
@arguments.timeout
@common
def attach(
    output: Output,
    machine: str,
    lane_file: str,
    connect: str | None,
    live: bool,
    config: bool,
    print_diff: bool,
    yes: bool,
    agreed: str,
    no_verify: bool,
    timeout: float,
) -> int:
    """Plug one more lane into a running machine. LANE.toml holds one [[lane]] table and nothing else.

    With --connect, MACHINE is a libvirt domain: the lane is plugged into it where it runs, and written into its
    definition, after the change was shown as a diff and answered with yes. --live and --config choose one of the two.
    """
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.domain import attach as give
    from nvlane.cli.service.plug import attach as plug_in
    from nvlane.cli.service.record import domain_of
    from nvlane.cli.service.world import this_world
    from nvlane.cli.spec_files import read_file

    question = Question(output, print_diff=print_diff, yes=yes, agreed=agreed)
    if (there := elsewhere(output, connect)) is not None:
        from nvlane.cli.elsewhere_files import lane_text

        chosen = {"--live": live, "--config": config, "--no-verify": no_verify}
        words = ["attach", *there.connect, *(name for name, wanted in chosen.items() if wanted)]
        text = lane_text(read_file(lane_file))
        return there.change(
            *words, f"--timeout={timeout}", "--", machine, "-", domain=machine, question=question, text=text
        )
    world = this_world()
    uri = connect if connect is not None else domain_of(world.store, machine)
    if uri is None and (live or config or print_diff):
        raise click.UsageError("--live, --config and --print-diff are for libvirt domains: add --connect URI")
    if uri is None:
        with Lines(output) as tell:
            record, lane = plug_in(
                world, machine, read_file(lane_file), tell, check_guest=not no_verify, deadline=timeout
            )
        return _say(output, machine, record, lane)
    with Lines(output) as tell:
        given = give(
            world, uri, machine, read_file(lane_file), tell,
            live=live, config=config, ask=question, check_guest=not no_verify, deadline=timeout,
        )  # fmt: skip
    if given is None:
        return question.nothing_done(machine)
    return _say(output, machine, *given)


def _say(output: Output, machine: str, record: MachineRecord, lane: LaneRecord) -> int:
    from nvlane.cli.service.record import as_json
    from nvlane.cli.service.verify import raise_for_evidence
    from nvlane.spec.lane import LaneKind

    value = {**as_json(record), "attached": lane.name}
    if output.json:
        output.data(value, str)
        return 0 if value["verified"] is not False else 4
    out = f"nvlane detach {record.name} {lane.name} takes it out again"
    if lane.kind == LaneKind.NVDIMM:  # QEMU lets no persistent memory go
        end = f"nvlane down {machine}" if record.domain is None else "the domain was shut down"
        out = f"it stays until {end}"
    output.say(f"{lane.name} is attached to {machine}; {out}")
    raise_for_evidence(record)
    return 0
