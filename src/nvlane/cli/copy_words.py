"""How a copy in progress looks, and what is said of one that is done, for `mirror`, `backup` and `jobs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nvlane.cli.progress import Lines

if TYPE_CHECKING:
    from nvlane.cli.output import Output
    from nvlane.cli.service.snapshot import Moved
    from nvlane.qemu.blocks import JobNow

MIB = 1 << 20


class CopyLines(Lines):
    """Progress with a job's share of its way: on a terminal in the spinner, elsewhere a line each quarter."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._copy_output = output
        self._quarter = 0
        self._job = ""

    def watch(self, job: JobNow) -> None:
        if not job.total:
            return
        if job.id != self._job:
            self._job, self._quarter = job.id, 0
        part = job.done / job.total
        words = f"{job.id}: {part:.0%} of {job.total / MIB:.0f} MiB"
        self.spin(words)
        if self._status is None and int(part * 4) > self._quarter:
            self._quarter = int(part * 4)
            self._copy_output.say(f"  … {words}")


def say_moved(output: Output, machine: str, moved: Moved) -> None:
    output.say(f"{machine} has {moved.disk} on {moved.now} now; {moved.was} is left as it was at that moment")
    output.say(f"  the next up must name it: {moved.spec}")


def size_option(_: click.Context, parameter: click.Parameter, value: str) -> int:
    """A size as specs have it, to bytes."""
    from nvlane.model.size import parse_size

    if not value:
        return 0
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


to = click.option("--to", required=True, type=click.Path(resolve_path=True), metavar="PATH",
                  help="Where to: a new file, or a block device with --erase.")  # fmt: skip
image_format = click.option("--format", "fmt", type=click.Choice(["raw", "qcow2"]), default=None,
                            help="Of a new file; left out, by its name (.qcow2), else raw.")  # fmt: skip
erase = click.option("--erase", default="", metavar="DEVICE",
                     help="The block device once more: everything on it is overwritten.")  # fmt: skip
speed = click.option("--speed", default="", callback=size_option, metavar="SIZE",
                     help="At most so much a second, as 100MiB.")  # fmt: skip
