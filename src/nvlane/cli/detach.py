"""`nvlane detach`: take a lane out of a running machine, or out of a libvirt domain."""

from __future__ import annotations

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.domain_options import Question
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@arguments.lane
@domain_options.connect
@domain_options.asked
@common
def detach(
    output: Output, machine: str, lane: str, connect: str | None, print_diff: bool, yes: bool, agreed: str
) -> int:
    """Unplug a lane from a running machine, and undo what was done on the host for it alone.

    The guest must let the device go: unmount it there first. Of a libvirt domain, running or not, the definition is
    changed too, after the change was shown as a diff and answered with yes. Exit status 4 when what the guest wrote
    on a namespace of a fabric was not read back on the host.
    """
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.domain_away import detach as take
    from nvlane.cli.service.plug import detach as plug_out
    from nvlane.cli.service.record import as_json, domain_of
    from nvlane.cli.service.world import this_world
    from nvlane.model.codec import encode
    from nvlane.model.errors import HostError

    question = Question(output, print_diff=print_diff, yes=yes, agreed=agreed)
    if (there := elsewhere(output, connect)) is not None:
        return there.change("detach", *there.connect, "--", machine, lane, domain=machine, question=question)
    world = this_world()
    uri = domain_of(world.store, machine)
    if connect is not None and uri is None:
        raise HostError(f"nvlane has given the domain {machine} nothing", remedy="nvlane status shows what there is")
    if uri is None:
        with Lines(output) as tell:
            taken = plug_out(world, machine, lane, tell)
    else:
        with Lines(output) as tell:
            found = take(world, machine, lane, tell, question)
        if found is None:
            return question.nothing_done(machine)
        taken = found
    record, proofs = taken
    if output.json:
        output.data({**as_json(record), "detached": lane, "proofs": [encode(piece) for piece in proofs]}, str)
    else:
        output.say(f"{lane} is detached from {machine}")
    return 4 if any(not piece.ok for piece in proofs) else 0
