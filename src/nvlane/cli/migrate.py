"""`nvlane migrate`: a running machine to a second QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nvlane.cli import arguments, copy_words
from nvlane.cli.output import Output, common

if TYPE_CHECKING:
    from nvlane.qemu.blocks import JobNow
    from nvlane.qemu.migration import MigrationNow


class _MoveLines(copy_words.CopyLines):
    def copied(self, job: JobNow) -> None:
        self.watch(job)

    def moved(self, migration: MigrationNow) -> None:
        if migration.total:
            self.spin(f"{migration.status}: {migration.remaining >> 20} of {migration.total >> 20} MiB are left")


@click.command()
@arguments.machine
@click.option("--to", default="local", show_default=True, metavar="local", help="Where to: a second QEMU on this host.")
@click.option(
    "--copy-storage",
    "directory",
    default=None,
    type=click.Path(resolve_path=True),
    metavar="DIRECTORY",
    help="Copy the disks into new images there, and go on at those.",
)
@copy_words.speed
@common  # fmt: skip
def migrate(output: Output, machine: str, to: str, directory: str | None, speed: int) -> int:
    """Move a running MACHINE to a new QEMU on this host, as after an upgrade of QEMU, while its guest runs.

    Disks are shared: both have the same files, and a vhost-user lane gets a second target on its file. With
    --copy-storage the disks of QEMU's block layer are mirrored into new images while the guest writes to them. What
    stands in the way is said before anything is changed, in QEMU's own words where they are QEMU's. When it breaks off,
    the guest goes on where it was, and what was made for the move is removed.
    """
    from nvlane.cli.service.migrate import Storage, no_other_place
    from nvlane.cli.service.migrate import migrate as move
    from nvlane.cli.service.world import this_world

    no_other_place(to)
    with _MoveLines(output) as tell:
        done = move(this_world(), machine, Storage(directory=directory or "", speed=speed), tell, tell)
    if output.json:
        output.data(done, str)
    else:
        for disk, path in done.disks.items():
            output.say(f"{disk} is on {path} now, which the next up must name")
        output.say(f"{machine} runs in process {done.pid} now; its guest stood still for {done.downtime} ms")
        output.say(f"  QMP  {done.qmp}")
    return 0
