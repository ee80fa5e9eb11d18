"""`nvlane jobs`: the copies that a machine is at, and their end."""

from __future__ import annotations

import click

from nvlane.cli import arguments, copy_words
from nvlane.cli.output import Output, common, table


@click.command()
@arguments.machine
@click.option("--complete", default="", metavar="JOB", help="Go on at the copy, when it is the same.")
@click.option("--stop", default="", metavar="JOB", help="Leave a whole copy of this moment, and stay.")
@click.option("--cancel", default="", metavar="JOB", help="Drop it, and remove the file that it made.")
@common
def jobs(output: Output, machine: str, complete: str, stop: str, cancel: str) -> int:
    """Show the jobs of a running machine; with an option, tell a mirror that was left running its end."""
    from nvlane.cli.service.copies import jobs_of, tell_job
    from nvlane.cli.service.world import this_world

    asked = {"complete": complete, "stop": stop, "cancel": cancel}
    told = [(then, job) for then, job in asked.items() if job]
    if len(told) > 1:
        raise click.UsageError("one of --complete, --stop and --cancel")
    with copy_words.CopyLines(output) as tell:
        if not told:
            found = jobs_of(this_world(), machine, tell)
        else:
            ((then, job),) = told
            ended = tell_job(this_world(), machine, job, then, tell, tell.watch)
    if not told:
        rows = [[job.id, job.kind, job.disk, job.to, job.status, f"{job.done} of {job.total}"] for job in found]
        head = ["JOB", "KIND", "DISK", "TO", "STATUS", "DONE"]
        output.data(found, lambda: table(head, rows) if rows else "")
        if not found:
            output.say(f"{machine} has no jobs")
        return 0
    if output.json:
        output.data(ended, str)
    elif ended.moved is not None:
        copy_words.say_moved(output, machine, ended.moved)
    else:
        output.say(f"{ended.id}: {ended.state}")
    return 0
