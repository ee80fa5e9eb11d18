"""The spec's declarations, read from its dataclasses: reader, schema and documentation share them."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nvlane.spec.key import Kind
from nvlane.spec.lane import Lane
from nvlane.spec.machine import Machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One key of one table. `hint` is its Python type without `None`; `example` the text of a value."""

    name: str
    hint: Any
    kind: Kind
    words: str
    required: bool
    default: Any
    minimum: int
    maximum: int | None
    pattern: str
    example: str

    @property
    def item(self) -> Any:
        """The type of the elements of an array, None for anything else."""
        return typing.get_args(self.hint)[0] if typing.get_origin(self.hint) is tuple else None


@functools.cache
def declared(table: type) -> Mapping[str, Declared]:
    """The keys of a table's class, in the order of their declaration."""
    hints = typing.get_type_hints(table)
    return {field.name: _declared(field, hints[field.name]) for field in dataclasses.fields(table)}


def _declared(field: dataclasses.Field[Any], hint: Any) -> Declared:
    metadata = field.metadata
    required = field.default is dataclasses.MISSING
    return Declared(
        name=field.name,
        hint=_without_none(hint),
        kind=metadata["kind"],
        words=metadata["words"],
        required=required,
        default=None if required else field.default,
        # No key of the spec counts anything that can be negative.
        minimum=metadata["minimum"] or 0,
        maximum=metadata["maximum"],
        pattern=metadata["pattern"],
        example=metadata["example"],
    )


def _without_none(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        (only,) = (option for option in typing.get_args(hint) if option is not type(None))
        return only
    return hint


def lane_classes() -> Mapping[str, type]:
    """Lane kind to its class, in the order of the declaration of `Lane`."""
    return {str(lane.KIND): lane for lane in typing.get_args(Lane)}


def tables() -> Mapping[str, type]:
    """Every table of the spec by its class name, each before the tables that it holds."""
    found: dict[str, type] = {}
    waiting: list[type] = [Machine, *lane_classes().values()]
    while waiting:
        table = waiting.pop(0)
        found[table.__name__] = table
        nested = [option for key in declared(table).values() for option in (key.hint, key.item)]
        waiting.extend(option for option in nested if dataclasses.is_dataclass(option) and isinstance(option, type))
    return found
