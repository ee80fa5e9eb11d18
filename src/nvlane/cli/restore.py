"""`nvlane restore`: after a crash, put back what an interrupted run changed."""

from __future__ import annotations

import click

from nvlane.cli import arguments, domain_options
from nvlane.cli.output import Output, common


@click.command()
@click.argument("runs", metavar="[RUN]...", nargs=-1, shell_complete=arguments.complete_machines)
@click.option("--forget", is_flag=True, help="Remove the record of RUN and undo nothing: what it names stays as it is.")
@domain_options.on_host
@common
def restore(output: Output, runs: tuple[str, ...], forget: bool, connect: str | None) -> int:
    """Put back what an interrupted run changed.

    Without RUN: every run that was cut short or whose machine has ended, and what was cut short on the disks of a
    machine that is up. Machines that are up are left alone otherwise; with their name they are refused, for
    `nvlane down` is the verb for them. Exits 5 when something could not be put back, and names it.
    """
    from nvlane.cli.elsewhere import elsewhere
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.block_work import finish_cut_short, is_cut_short
    from nvlane.cli.service.down import forget as forget_run
    from nvlane.cli.service.down import leftovers
    from nvlane.cli.service.runs import RunState, look_at
    from nvlane.cli.service.world import this_world
    from nvlane.cli.went_down import undo_runs
    from nvlane.model.errors import HostError

    if (there := elsewhere(output, connect)) is not None:
        return there.run("restore", *(["--forget"] if forget else []), "--", *runs)
    world = this_world()
    if forget:
        if not runs:
            raise click.UsageError("--forget needs the name of a run")
        forgotten = {name: list(forget_run(world, name)) for name in runs}
        lines = [f"{name}: not undone: {line}" for name, texts in forgotten.items() for line in texts]
        output.data(forgotten, lambda: "\n".join(lines) or "nothing was left to undo")
        return 0
    cut = tuple(name for name in runs or world.store.names() if is_cut_short(world, name))
    for name in cut:
        with Lines(output) as tell:
            finish_cut_short(world, name, tell)
        output.say(f"{name} is up, and what was cut short on its disks is put right")
    runs_left = tuple(name for name in runs if name not in cut)
    if runs and not runs_left:
        output.data([], str)
        return 0
    for name in runs_left:
        if world.store.has(name) and look_at(world, name).state is RunState.UP:
            raise HostError(f"{name} is up", remedy=f"nvlane down {name} ends it and puts the host back")
    names = runs_left or tuple(seen.run.name for seen in leftovers(world))
    if not names and not cut:
        output.say("nothing was left by a crash")
    return undo_runs(output, world, names, shutdown=0)
