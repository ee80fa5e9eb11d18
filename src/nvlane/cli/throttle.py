"""`nvlane throttle`: limits for a disk of a running machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from nvlane.cli import arguments, copy_words
from nvlane.cli.output import Output, common

if TYPE_CHECKING:
    from nvlane.cli.service.limits import Limits

Command = Callable[..., Any]


def _count(name: str, what: str) -> Callable[[Command], Command]:
    return click.option(name, type=click.IntRange(min=1), default=None, metavar="N", help=f"{what} a second.")


def _size(name: str, what: str) -> Callable[[Command], Command]:
    return click.option(name, default="", callback=copy_words.size_option, metavar="SIZE", help=f"{what} a second.")


@click.command()
@arguments.machine
@arguments.disk
@_count("--iops", "Operations")
@_count("--iops-read", "Reads")
@_count("--iops-write", "Writes")
@_size("--bps", "Bytes")
@_size("--bps-read", "Bytes read")
@_size("--bps-write", "Bytes written")
@_count("--burst-iops", "Operations for a moment, with --iops: so many")
@_size("--burst-bps", "Bytes for a moment, with --bps: so many")
@click.option("--clear", is_flag=True, help="No limits any more.")
@common
def throttle(
    output: Output, machine: str, disk: str, iops: int | None, iops_read: int | None, iops_write: int | None, bps: int,
    bps_read: int, bps_write: int, burst_iops: int | None, burst_bps: int, clear: bool,
) -> int:  # fmt: skip
    """Limit what DISK of a running MACHINE may do, or show its limits. They go with the machine.

    The disk of a vhost-user lane is limited by its target: whole thousands of operations, whole MiB, no bursts.
    """
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.limits import throttle as limit
    from nvlane.cli.service.world import this_world

    asked = {
        "iops": iops, "iops_rd": iops_read, "iops_wr": iops_write, "iops_max": burst_iops,
        "bps": bps, "bps_rd": bps_read, "bps_wr": bps_write, "bps_max": burst_bps,
    }  # fmt: skip
    wanted = {name: value for name, value in asked.items() if value}
    if clear and wanted:
        raise click.UsageError("either limits or --clear")
    for burst, rate in (("iops_max", "iops"), ("bps_max", "bps")):
        if burst in wanted and rate not in wanted:
            raise click.UsageError(f"--burst-{rate} is above --{rate}: name that too")
    with Lines(output) as tell:
        found = limit(this_world(), machine, disk, wanted if wanted or clear else None, tell)
    output.data(found, lambda: _text(found))
    return 0


def _text(found: Limits) -> str:
    if not found.limits:
        return f"{found.disk}: no limits"
    said = ", ".join(f"{name} {value}" for name, value in found.limits.items())
    return f"{found.disk}: {said} (by {found.by})"
