"""`nvlane devices`: the NVMe drives here, and who uses each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from nvlane.cli.output import Output, common, table

if TYPE_CHECKING:
    from nvlane.facts.shape import Drive, Facts


@click.command()
@common
def devices(output: Output) -> None:
    """List the NVMe drives: address, serial, model, driver, IOMMU group, NUMA node, namespaces, uses, content.

    A drive without a use can be given to a guest; data on it is named, and is no reason to refuse.
    """
    from nvlane.cli.service.world import read_host, this_world

    facts = read_host(this_world(), probe_kvm=False)
    output.data([_json(facts, drive) for drive in facts.drives], lambda: _text(facts))
    if not facts.drives:
        output.say("this host shows no NVMe drive; the lab has some: nvlane lab up")
    for line in facts.unknown:
        output.say(f"not known: {line}")


def _text(facts: Facts) -> str:
    if not facts.drives:
        return ""
    headings = ["ADDRESS", "SERIAL", "MODEL", "DRIVER", "GROUP", "NODE", "NAMESPACES", "USED BY", "HOLDS"]
    return table(headings, [_row(facts, drive) for drive in facts.drives])


def _row(facts: Facts, drive: Drive) -> list[str]:
    from nvlane.model.size import format_size

    function = facts.function(drive.address)
    group = "-" if function is None or function.iommu_group is None else str(function.iommu_group)
    if siblings := _siblings(facts, drive):
        group += f" with {', '.join(siblings)}"
    namespaces = [f"{ns.name} {format_size(ns.size)} ({ns.block_size}B blocks)" for ns in drive.namespaces]
    return [
        str(drive.address),
        drive.serial or "?",
        drive.model or "?",
        (function.driver if function else "") or "none",
        group,
        "-" if function is None or function.numa_node < 0 else str(function.numa_node),
        "\n".join(namespaces) or "?",
        "\n".join(f"{use.device}: {use.kind.value}" for use in drive.uses) or "-",
        "\n".join(f"{content.device}: {content.what}" for content in drive.contents) or "-",
    ]


def _siblings(facts: Facts, drive: Drive) -> list[str]:
    function = facts.function(drive.address)
    if function is None or function.iommu_group is None:
        return []
    group = facts.group(function.iommu_group)
    return [str(other.address) for other in group if other.address != drive.address and not other.is_bridge]


def _json(facts: Facts, drive: Drive) -> dict[str, Any]:
    from nvlane.model.codec import encode

    function = facts.function(drive.address)
    value: dict[str, Any] = encode(drive)
    return {**value, "function": encode(function), "siblings": _siblings(facts, drive), "free": not drive.uses}
