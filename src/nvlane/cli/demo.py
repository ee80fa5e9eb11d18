"""`nvlane demo`: every lane in the lab, proven, in one table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nvlane.cli.output import Output
from nvlane.cli.progress import Lines

if TYPE_CHECKING:
    from nvlane.lab.machine import Kernel
    from nvlane.lab.session import Lab

#: What libvirt in the lab is reached by.
URI = "qemu:///system"
#: How many labs the tour may use up.
LABS = 3
#: Words for the column 'proof', by what the evidence holds; the strongest that there is.
_PROOFS = (
    ("the host reads on", "guest wrote, host read it back"),
    ("pmem_is_pmem", "pmem_is_pmem, persisted, read back"),
    ("content, SHA-256", "content as the host saw it"),
    ("reads back what was written", "guest wrote sectors, read them back"),
)


@click.command()
@click.option("--json", "report", type=click.Path(path_type=Path), metavar="FILE", help="Write the report here too.")
@click.option("--all", "everything", is_flag=True, help="More variants of each lane, which takes longer.")
@click.option(
    "--connect",
    metavar="URI",
    is_flag=False,
    flag_value=URI,
    default="",
    help="On libvirt domains of the lab, each defined for one halt; without a URI qemu:///system.",
)
@click.option("--inside", "halts", multiple=True, hidden=True, help="One halt of the tour, on this very host.")
@click.pass_obj
def demo(output: Output, report: Path | None, everything: bool, connect: str, halts: tuple[str, ...]) -> int:
    """Start the lab, bring a machine up on each lane, prove it from inside the guest, and put the host back.

    It needs no NVMe drive, no IOMMU and no KVM, and touches nothing of this host. The first time makes the lab's
    image, which takes about a minute. With --connect the machines are libvirt domains. With --json FILE the evidence
    is written there as JSON. Exit status 4 when a claim was not true, 5 when the lab's host was not put back.
    """
    if connect not in ("", URI):
        raise click.UsageError(f"the lab's libvirt has {URI} only, and not {connect}")
    if halts:
        return _inside(halts, connect)
    begin = time.monotonic()
    result = _in_labs(output, everything, connect)
    result["total_seconds"] = round(time.monotonic() - begin, 1)
    if report is not None:
        report.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _say(output, result, report)
    if not all(lane["verified"] for lane in result["lanes"]):
        return 4
    return 0 if result["host_restored"] else 5


def _inside(names: tuple[str, ...], connect: str) -> int:
    from nvlane.cli.service.tour import take_tour
    from nvlane.cli.service.world import this_world
    from nvlane.lab.tour import TOUR

    wanted = [halt for halt in TOUR if halt.name in names]
    good = take_tour(this_world(), wanted, lambda event: click.echo(json.dumps(event)), connect=connect)
    return 0 if good else 4


def _in_labs(output: Output, everything: bool, connect: str) -> dict[str, Any]:
    """The whole tour, in one lab for each kernel that it needs; in another from where it was, should one stall."""
    from nvlane.lab import Kernel, LabStalled
    from nvlane.lab.tour import TOUR

    result: dict[str, Any] = {
        "lanes": [],
        "host_restored": True,
        "accelerator": "",
        "connect": connect,
        "once_more": [],
    }
    labs_left = LABS
    for kernel in Kernel:
        left = [halt.name for halt in TOUR if halt.kernel is kernel and (everything or not halt.all_only)]
        while left:
            try:
                _in_one_lab(output, kernel, left, result)
            except LabStalled as error:
                labs_left -= 1
                if not labs_left:
                    raise
                output.warn(f"lab: {error.message}; another one goes on with {left[0]}")
            else:
                break
    return result


def _in_one_lab(output: Output, kernel: Kernel, left: list[str], result: dict[str, Any]) -> None:
    from nvlane import lab

    # Halts come one after the other, and two emulated processors take as long for them as one.
    machine = lab.LabMachine(name="demo", cpus=1, kernel=kernel)
    with lab.up(machine, lambda words: output.say(f"lab: {words}")) as room:
        output.say(f"lab: up after {room.state.seconds:.1f} s under {room.state.accelerator}")
        result["accelerator"] = room.state.accelerator
        if not result["lanes"]:
            output.say(_row("lane", "variant", "front end", "what the guest saw", "proof") + "  seconds")
        with Lines(output) as spinner:
            for event in _events(room, left, result["connect"]):
                _show(event, output, spinner, left, result)


def _show(event: dict[str, Any], output: Output, spinner: Lines, left: list[str], result: dict[str, Any]) -> None:
    """Tell a person of an event, and put what it tells into the result."""
    match event["event"]:
        case "halt" | "doing" | "note":
            spinner.spin(event["text"])
            output.detail(f"    {event['text']}")
        case "done":
            if _fell_silent(event["result"], result) and event["name"] not in result["once_more"]:
                from nvlane.lab import LabStalled

                result["once_more"].append(event["name"])
                raise LabStalled(f"the guest of {event['name']} did not come up")
            left.remove(event["name"])
            result["lanes"].append(event["result"])
            result["host_restored"] &= not event["differences"]
            _end_row(output, event["result"])
            for line in event["differences"]:
                output.warn(f"  not as it was: {line}")


def _fell_silent(lane: dict[str, Any], result: dict[str, Any]) -> bool:
    """Whether a guest spun at its start, which one of an emulated host may do; see lab/emulator.py."""
    words = (str(piece["found"]) for piece in lane["evidence"] if not piece["ok"])
    return result["accelerator"] == "tcg" and any("did not come up within" in found for found in words)


def _events(room: Lab, names: list[str], connect: str) -> Iterator[dict[str, Any]]:
    argv = [
        "nvlane",
        "demo",
        *(["--connect", connect] if connect else []),
        *(word for name in names for word in ("--inside", name)),
    ]
    for line in room.stream(argv, check=False):
        if line.startswith('{"event"'):
            yield json.loads(line)
        else:
            click.echo(line, err=True)


#: What else is counted in bytes.
_NO_SIZES = ("block", "metadata", "addressable", "sector")
_WIDTHS = (12, 32, 12, 38, 36)


def _end_row(output: Output, lane: dict[str, Any]) -> None:
    row = _row(lane["lane"], lane["variant"], lane["frontend"], saw(lane), proof(lane))
    output.say(f"{row}  {lane['seconds']:7.1f}")
    for piece in lane["evidence"]:
        if not piece["ok"]:
            output.warn(f"  not true: {piece['claim']}: expected {piece['expected']}, found {piece['found']}")


def _row(*cells: str) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=True))


def saw(lane: dict[str, Any]) -> str:
    """What the guest found, in a few words: sizes of disks and regions, and what is special about them."""
    from nvlane.model.size import format_size

    sizes = []
    for piece in lane["evidence"]:
        name, _, what = piece["claim"].rpartition(" ")
        if what == "mode" and name.startswith("namespace"):
            sizes.append(piece["found"])
        if what == "bytes" and piece["found"].isdigit() and not name.endswith(_NO_SIZES):
            if name.startswith("memory device"):
                continue
            sizes.append(f"{name.removeprefix('/dev/')} {format_size(int(piece['found']))}")
    return ", ".join(sizes) or "nothing"


def proof(lane: dict[str, Any]) -> str:
    """The strongest proof among the evidence, or that there is none."""
    if not lane["verified"]:
        return "FAILED"
    claims = [piece["claim"] for piece in lane["evidence"]]
    for mark, words in _PROOFS:
        if any(mark in claim for claim in claims):
            return words
    return "identity and size"


def _say(output: Output, result: dict[str, Any], report: Path | None) -> None:
    true = sum(lane["verified"] for lane in result["lanes"])
    restored = "is as it was" if result["host_restored"] else "is NOT as it was"
    output.say(
        f"{true} of {len(result['lanes'])} lanes proven from inside their guests; the lab's host {restored}; "
        f"{result['total_seconds']:.0f} s under {result['accelerator']}."
    )
    if report is not None:
        output.say(f"evidence: {report}")
