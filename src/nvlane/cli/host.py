"""`nvlane host`: hugepages and drivers without a machine; the counterpart of SPDK's setup script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nvlane.cli.output import Output, common, table

if TYPE_CHECKING:
    from nvlane.cli.service.prepared import HostState
    from nvlane.plan.prepare import Wanted

DRIVERS = ("vfio-pci", "uio_pci_generic")


@click.group()
def host() -> None:
    """Reserve hugepages and move drives to a userspace driver, and remember what was there before.

    \b
    HUGEMEM=4096 scripts/setup.sh   is   nvlane host setup --hugemem 4096 --all-idle
    scripts/setup.sh reset          is   nvlane host reset
    scripts/setup.sh status         is   nvlane host status
    """


@host.command()
@click.option("--hugemem", type=click.IntRange(min=1), metavar="MIB", help="Hugepages for this many MiB in all.")
@click.option("--hugepages", type=click.IntRange(min=1), metavar="COUNT", help="This many hugepages in all.")
@click.option("--size", default="", metavar="SIZE", help="Their size, as 2MiB or 1GiB; left out, the kernel's default.")
@click.option("--node", type=click.IntRange(min=0), metavar="NODE", help="Their NUMA node; left out, all share them.")
@click.option("--drive", "drives", multiple=True, metavar="DRIVE", help="PCI address or serial:S; may be repeated.")
@click.option("--all-idle", is_flag=True, help="Every drive that nothing uses.")
@click.option("--driver", type=click.Choice(DRIVERS), default=DRIVERS[0], show_default=True,
              help="uio_pci_generic is for hosts without an IOMMU, and protects nothing.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@common
def setup(output: Output, dry_run: bool, **options: Any) -> int:
    """Prepare the host. What is there already is left; a second setup adds to the first."""
    from nvlane.cli.progress import Lines
    from nvlane.cli.service.prepared import set_up
    from nvlane.cli.service.world import read_host, this_world
    from nvlane.cli.show import plan_json, plan_text
    from nvlane.plan.prepare import prepare

    world = this_world()
    if dry_run:
        facts = read_host(world, probe_kvm=False)
        plan = prepare(_wanted(facts.default_hugepage, **options), facts)
        output.data(plan_json("host", plan), lambda: plan_text("host", plan, str))
        return 3 if plan.refusals else 0
    default = _default_size(world)
    with Lines(output) as tell:
        plan = set_up(world, _wanted(default, **options), tell)
    if output.json:
        output.data(plan_json("host", plan), str)
    else:
        output.say("nvlane host reset undoes it" if plan.steps else "everything is there already")
    return 0


def _default_size(world: Any) -> int:
    from nvlane.facts.hugepages import read_default_size

    return read_default_size(world.host)


def _wanted(
    default_size: int,
    *,
    hugemem: int | None,
    hugepages: int | None,
    size: str,
    node: int | None,
    drives: tuple[str, ...],
    all_idle: bool,
    driver: str,
) -> Wanted:
    from nvlane.model.size import MIB, format_size, parse_size
    from nvlane.plan.prepare import UserspaceDriver, Wanted
    from nvlane.spec.drive import normal_drive

    if hugemem is not None and hugepages is not None:
        raise click.UsageError("--hugemem and --hugepages say the same thing twice")
    try:
        page = parse_size(size) if size else default_size
        named = tuple(normal_drive(text) for text in drives)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if hugemem is not None and (not page or hugemem * MIB % page):
        raise click.UsageError(f"--hugemem {hugemem} is no multiple of the page size ({format_size(page)})")
    pages = hugemem * MIB // page if hugemem is not None else hugepages or 0
    if not pages and not named and not all_idle:
        raise click.UsageError("say what to set up: --hugemem, --hugepages, --drive or --all-idle")
    return Wanted(
        pages=pages, page_size=page, node=node, drives=named, all_idle=all_idle, driver=UserspaceDriver(driver)
    )


@host.command()
@common
def reset(output: Output) -> int:
    """Undo everything that `host setup` did: drivers, overrides, hugepage counts, mounts, modules."""
    from nvlane.apply.store import HOST_RUN
    from nvlane.cli.service.world import this_world
    from nvlane.cli.went_down import undo_runs

    world = this_world()
    if not world.store.has(HOST_RUN):
        output.say("nothing was set up")
        return undo_runs(output, world, (), shutdown=0)
    return undo_runs(output, world, (HOST_RUN,), shutdown=0)


@host.command("status")
@common
def host_status(output: Output) -> None:
    """Show hugepages by node and size, the driver of each drive, and what `host reset` would undo."""
    from nvlane.cli.service.prepared import host_state
    from nvlane.cli.service.world import this_world
    from nvlane.model.codec import encode

    state = host_state(this_world())
    value = {
        "hugepages": [encode(pool) for pool in state.facts.hugepages],
        "drives": [
            {"address": str(drive.address), "serial": drive.serial, "driver": _driver(state, drive.address)}
            for drive in state.facts.drives
        ],
        "to_undo": list(state.to_undo),
    }
    output.data(value, lambda: _text(state))


def _text(state: HostState) -> str:
    from nvlane.model.size import format_size

    pools = [
        [str(pool.node), format_size(pool.page_size), str(pool.total), str(pool.free), str(pool.surplus)]
        for pool in state.facts.hugepages
    ]
    drives = [
        [str(drive.address), drive.serial or "?", _driver(state, drive.address) or "none", "yes" if drive.uses else ""]
        for drive in state.facts.drives
    ]
    parts = [table(["NODE", "PAGE", "PAGES", "FREE", "SURPLUS"], pools)]
    if drives:
        parts.append(table(["ADDRESS", "SERIAL", "DRIVER", "IN USE"], drives))
    if state.to_undo:
        parts.append("host reset would undo:\n" + "\n".join(f"  {line}" for line in state.to_undo))
    return "\n\n".join(parts)


def _driver(state: HostState, address: Any) -> str:
    function = state.facts.function(address)
    return function.driver if function else ""
