"""`nvlane down`: end machines and put the host back."""

from __future__ import annotations

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.output import Output, common


@click.command()
@click.argument("machines", metavar="[MACHINE]...", nargs=-1, shell_complete=arguments.complete_machines)
@click.option("--all", "everything", is_flag=True, help="Every machine that is up.")
@click.option(
    "--shutdown", type=click.FloatRange(min=0), default=60.0, show_default=True, metavar="SECONDS",
    help="How long a guest with a disk of its own may take to shut down; 0: it is not asked.",
)  # fmt: skip
@domain_options.on_host
@common
def down(output: Output, machines: tuple[str, ...], everything: bool, shutdown: float, connect: str | None) -> int:
    """End a machine and put the host back as it was before `up`.

    Where the spec allows writing (write_proof), the host then reads what the guest wrote. Exits 4 when it reads
    something else, and 5 when something could not be put back.
    """
    from nvlane.apply.store import HOST_RUN
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.went_down import take_all_down
    from nvlane.model.errors import HostError

    if HOST_RUN in machines:
        raise HostError(f"'{HOST_RUN}' is no machine", remedy="nvlane host reset undoes what host setup did")
    if not machines and not everything:
        raise click.UsageError("name a machine, or say --all")
    if (there := elsewhere(output, connect)) is not None:
        words = ["--all"] if everything else []
        return there.run("down", *words, f"--shutdown={shutdown}", "--", *machines)
    return take_all_down(output, machines if not everything else None, shutdown=shutdown)
