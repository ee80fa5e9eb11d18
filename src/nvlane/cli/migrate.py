"""`nvlane migrate`: a running machine to a second QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common
from nvlane.cli.progress import Lines

if TYPE_CHECKING:
    from nvlane.qemu.migration import MigrationNow


class _MoveLines(Lines):
    def watch(self, now: MigrationNow) -> None:
        if now.total:
            self.spin(f"{now.status}: {now.remaining >> 20} of {now.total >> 20} MiB are left")


@click.command()
@arguments.machine
@click.option("--to", default="local", show_default=True, metavar="local", help="Where to: a second QEMU on this host.")
@common
def migrate(output: Output, machine: str, to: str) -> int:
    """Move a running MACHINE to a new QEMU on this host, as after an upgrade of QEMU, while its guest runs.

    Disks are shared: both have the same files, and a vhost-user lane gets a second target on its file. What stands in
    the way is said before anything is changed, in QEMU's own words where they are QEMU's. When it breaks off, the guest
    goes on where it was.
    """
    from nvlane.cli.service.migrate import migrate as move
    from nvlane.cli.service.migrate import no_other_place
    from nvlane.cli.service.world import this_world

    no_other_place(to)
    with _MoveLines(output) as tell:
        done = move(this_world(), machine, tell, tell.watch)
    if output.json:
        output.data(done, str)
    else:
        output.say(f"{machine} runs in process {done.pid} now; its guest stood still for {done.downtime} ms")
        output.say(f"  QMP  {done.qmp}")
    return 0
