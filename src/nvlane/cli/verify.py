"""`nvlane verify`: the lanes' claims, checked from inside the guest."""

from __future__ import annotations

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.output import Output, common


@click.command()
@arguments.machine
@click.option("--no-write", is_flag=True, help="Only read, also where the spec allows the guest to write a proof.")
@arguments.timeout
@domain_options.on_host
@common
def verify(output: Output, machine: str, no_write: bool, timeout: float, connect: str | None) -> int:
    """Check every claim of a running machine's lanes from inside its guest. Exits 4 when one is not true."""
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.record import as_json
    from nvlane.cli.service.verify import check, raise_for_evidence
    from nvlane.cli.service.world import this_world

    if (there := elsewhere(output, connect)) is not None:
        words = ["--no-write"] if no_write else []
        return there.run("verify", *words, f"--timeout={timeout}", "--", machine)
    with Lines(output) as tell:
        record = check(this_world(), machine, tell, write=not no_write, deadline=timeout)
    value = as_json(record)
    if output.json:
        output.data(value, str)
        return 0 if value["verified"] is not False else 4
    raise_for_evidence(record)
    output.say(f"{machine}: {len(record.evidence)} claims are true")
    return 0
