"""`nvlane advise`: which lane suits what is needed on this host, and the matrix that it rests on."""

from __future__ import annotations

import click

from nvlane.cli import arguments
from nvlane.cli.output import Output, common

#: nvlane.advise.wish.Need, which is imported only when it is needed: `nvlane --help` reads this module's options.
NEEDS = (
    *("hot-plug", "hot-unplug", "resize", "snapshot", "mirror", "backup", "throttle", "live-migration"),
    *("target-restart", "guest-reboot", "multi-queue", "discard", "share-drive", "no-iommu", "no-hugepages"),
    *("no-idle-cpu", "nvme", "persistent-memory"),
)


@click.command()
@click.argument("way", metavar="[LANE]", required=False)
@click.option("--need", "needs", multiple=True, metavar="NEED", type=click.Choice(NEEDS),
              help=f"What the lane must do, as often as there are needs: {', '.join(NEEDS)}.")  # fmt: skip
@click.option("--share-drive", is_flag=True, help="The same as --need share-drive.")
@click.option("--latency", is_flag=True, help="Put the lane first that is first under dense I/O.")
@click.option("--density", type=click.IntRange(min=1), default=1, metavar="N",
              help="So many machines on this host, each with a lane like this.")  # fmt: skip
@click.option("--drive", default="", help="For this drive: a PCI address, or serial:…")
@click.option("--size", default="", help="Size of the image, or of the memory.")
@click.option("--address", default="", help="A Target's address, for the lane fabrics.")
@click.option("--nqn", default="", help="The subsystem at that address.")
@click.option("--name", default="vm", show_default=True, help="The machine's name in the spec.")
@click.option("--image", default="", help="What the machine of the spec boots from.")
@click.option("--spec", "only_spec", is_flag=True, help="Print only the spec of the lane that suits best, or of LANE.")
@click.option("--matrix", is_flag=True, help="Print what each lane can do; with LANE, why, and which test shows it.")
@click.option("--markdown", is_flag=True, help="With --matrix: as Markdown.")
@arguments.facts_file
@common
def advise(
    output: Output,
    way: str | None,
    needs: tuple[str, ...],
    share_drive: bool,
    only_spec: bool,
    matrix: bool,
    markdown: bool,
    facts_file: str | None,
    **asked: str | int | bool,
) -> int:
    """Rank the lanes for what you need on this host: why, what each would lose, and the spec of the best.

    Changes nothing. Rests on one table of what each lane can do, of which every answer cites its test (--matrix), and
    on this host's facts (or those of a file: nvlane doctor --facts). It promises no speed. Exits 3 when no lane does
    all that is needed.
    """
    if matrix:
        _matrix(output, way, markdown)
        return 0
    from nvlane.advise.ranking import advise as rank
    from nvlane.cli.service.advising import facts_for, named_way, wish_of
    from nvlane.cli.show_advice import advice_json, advice_text, spec_of
    from nvlane.targets.table import ENGINES

    wish = wish_of((*needs, *(["share-drive"] if share_drive else [])), asked)
    choices = rank(wish, facts_for(facts_file), ENGINES)
    only = named_way(way) if way else None
    if only_spec:
        click.echo(spec_of(choices, only), nl=False)
        return 0
    shown = [choice for choice in choices if only in (None, choice.way)]
    output.data(advice_json(wish, shown), lambda: advice_text(wish, shown))
    return 0 if any(choice.fits for choice in shown) else 3


def _matrix(output: Output, way: str | None, markdown: bool) -> None:
    from nvlane.advise import table
    from nvlane.cli.service.advising import named_way

    if markdown:
        click.echo(table.markdown(), nl=False)
        return
    only = named_way(way) if way else None
    text = table.text_of(only) if only else table.text_table()
    found = table.values()
    if only:
        found["lanes"] = [lane for lane in found["lanes"] if lane["name"] == only.name]
    output.data(found, lambda: text)
