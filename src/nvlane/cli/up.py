"""`nvlane up`: bring machines up with their lanes, and verify them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.output import Output, common

if TYPE_CHECKING:
    from nvlane.cli.domain_options import Question
    from nvlane.cli.service.record import MachineRecord
    from nvlane.cli.service.up import SpecFile


@click.command()
@arguments.specs
@click.option("--keep-on-failure", is_flag=True, help="Leave what was done when a step fails, to look at it.")
@domain_options.asked
@arguments.no_verify
@arguments.timeout
@common
def up(
    output: Output,
    specs: tuple[str, ...],
    keep_on_failure: bool,
    print_diff: bool,
    yes: bool,
    agreed: str,
    no_verify: bool,
    timeout: float,
) -> int:
    """Bring a machine up with its lanes, and verify each lane from inside the guest.

    `nvlane plan SPEC` shows beforehand what is going to be done. Every change of the host is journaled first;
    `nvlane down` undoes it. When a step fails, what was done is undone at once. When a claim is not true the machine
    stays up, and the exit status is 4.

    A spec with machine.connect is for a libvirt domain: its changed definition is shown as a diff, and defined on a
    yes; then the domain is started, if it does not run.
    """
    from nvlane.cli.domain_options import Question
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.domain_up import bring_up_domain
    from nvlane.cli.service.record import as_json
    from nvlane.cli.service.up import bring_up
    from nvlane.cli.service.verify import raise_for_evidence
    from nvlane.cli.service.world import this_world
    from nvlane.cli.spec_files import read_files

    files = read_files(specs)
    question = Question(output, print_diff=print_diff, yes=yes, agreed=agreed)
    if any(file.spec().machine.connect for file in files):
        chosen = {"--keep-on-failure": keep_on_failure, "--no-verify": no_verify}
        words = [*(name for name, wanted in chosen.items() if wanted), f"--timeout={timeout}", "-"]
        if (status := _up_elsewhere(output, files, words, question)) is not None:
            return status
    world = this_world()
    results = []
    for file in files:
        output.say(f"{file.path}")
        if file.spec().machine.connect:
            with Lines(output) as tell:
                given = bring_up_domain(world, file, tell, ask=question, check_guest=not no_verify, deadline=timeout)
            if given is None:
                return question.nothing_done(file.spec().machine.name)
            came = given
        else:
            with Lines(output) as tell:
                came = bring_up(
                    world, file, tell, keep_on_failure=keep_on_failure, check_guest=not no_verify, deadline=timeout
                )
        results.append({**as_json(came.record), "seconds": dict(came.seconds)})
        if not output.json:
            _what_next(output, came.record, sum(came.seconds.values()))
        failed = [piece for piece in came.record.evidence if not piece.ok]
        if failed and not output.json:
            raise_for_evidence(came.record)
    if output.json:
        output.data(results, str)
    return 0 if all(result["verified"] is not False for result in results) else 4


def _up_elsewhere(output: Output, files: Sequence[SpecFile], words: Sequence[str], question: Question) -> int | None:
    """Bring up what is for another host; None where nothing is."""
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.elsewhere_files import spec_text

    for file in files:
        machine = file.spec().machine
        if (there := elsewhere(output, machine.connect)) is None:
            continue
        if len(files) > 1:
            raise click.UsageError(f"{file.path} is for another host: bring it up by itself")
        text = spec_text(file, there.there)
        return there.change("up", *words, domain=machine.name, question=question, text=text)
    return None


def _what_next(output: Output, record: MachineRecord, seconds: float) -> None:
    name, place = record.name, record.domain
    console = f"socat -,raw,echo=0 UNIX:{record.console}" if place is None else f"virsh -c {place.uri} console {name}"
    output.say(f"{name} is up after {seconds:.1f} s. Next:")
    output.say(f"  nvlane status {name}                 its lanes, sockets, evidence")
    output.say(f"  {console}    its serial console")
    output.say(f"  nvlane attach {name} LANE.toml       one more lane")
    output.say(f"  nvlane down {name}                   end it and put the host back")
