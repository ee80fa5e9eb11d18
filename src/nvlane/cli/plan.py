"""`nvlane plan`: what `up` would do. This is the dry run; there is no other."""

from __future__ import annotations

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common


@click.command()
@arguments.specs
@click.option(
    "--facts",
    "facts_file",
    type=click.Path(dir_okay=False),
    help="Plan for the host of this file (nvlane doctor --facts).",
)
@common
def plan(output: Output, specs: tuple[str, ...], facts_file: str | None) -> int:
    """Show what `up` would do: refusals, notes, steps, the QEMU command. Changes nothing.

    Exits 3 when a spec is refused.
    """
    from nvlane.cli.service.planning import plans_for
    from nvlane.cli.show import plan_json, plan_text
    from nvlane.cli.spec_files import read_files

    made = plans_for([file.spec() for file in read_files(specs)], facts_file)
    refused = any(plan.refusals for _, _, plan in made)
    for line in dict.fromkeys(line for _, facts, _ in made for line in facts.unknown):
        (output.say if refused or facts_file else output.detail)(f"not known: {line}")
    output.data(
        [plan_json(spec.machine.name, plan) for spec, _, plan in made] if output.json else (),
        lambda: "\n\n".join(plan_text(spec.machine.name, plan, spec.lane_name) for spec, _, plan in made),
    )
    return 3 if refused else 0
