"""`advise`: the words of the command line to a wish, and the facts of this host or of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nvlane.advise.cell import Way
from nvlane.advise.ways import WAYS
from nvlane.advise.wish import Need, Wish
from nvlane.cli.service.planning import load_facts
from nvlane.cli.service.world import read_host, this_world
from nvlane.facts.shape import Facts
from nvlane.model.errors import SpecError
from nvlane.model.size import parse_size
from nvlane.spec.drive import normal_drive
from nvlane.spec.nearest import nearest


def wish_of(needs: Sequence[str], asked: Mapping[str, str | int | bool]) -> Wish:
    """Raises SpecError for what makes no sense."""
    return Wish(
        needs=tuple(Need(need) for need in needs),
        density=int(asked["density"]),
        latency=bool(asked["latency"]),
        drive=_drive(str(asked["drive"])),
        machine=str(asked["name"]),
        image=str(asked["image"]),
        size=_size(str(asked["size"])),
        address=str(asked["address"]),
        nqn=str(asked["nqn"]),
        directory=str(Path.cwd()),
    )


def _drive(text: str) -> str:
    try:
        return normal_drive(text) if text else ""
    except ValueError as error:
        raise SpecError(str(error), place="--drive", remedy="nvlane devices names those that are here") from error


def _size(text: str) -> int:
    try:
        return parse_size(text) if text else 0
    except ValueError as error:
        raise SpecError(str(error), place="--size") from error


def named_way(name: str) -> Way:
    """A row of the matrix by its name. Raises SpecError."""
    for way in WAYS:
        if name in (way.name, way.short):
            return way
    known = {way.name: way for way in WAYS}
    raise SpecError(
        f"'{name}' is no row of the matrix{nearest(name, known)}",
        place="LANE",
        remedy=f"use {', '.join(known)}",
    )


def facts_for(facts_file: str | None) -> Facts:
    """Facts of this host, with what nvlane's own guest boots, or those of a file."""
    return load_facts(facts_file) if facts_file else read_host(this_world(), probe_guest=True)
