"""One value of the TOML text to one value of the spec, as the key's declaration says."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final

from nvlane.model.cpus import parse_cpus
from nvlane.model.size import format_size, parse_size
from nvlane.spec.declaration import Declared
from nvlane.spec.drive import normal_drive
from nvlane.spec.key import Kind
from nvlane.spec.nearest import nearest

#: QEMU's sizes and counts are signed 64-bit numbers at most.
LARGEST: Final = (1 << 63) - 1

TableReader = Callable[[type, object, str], object]


class Wrong(Exception):
    """A value that its key does not take; only the reader catches it."""

    def __init__(self, place: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.message = message
        self.remedy = remedy


def read_value(key: Declared, value: object, place: str, directory: str, table: TableReader) -> object:
    """The value of a key as its Python type has it. Raises Wrong."""
    match key.kind:
        case Kind.SIZE:
            return _within(key, _size(value, place), place)
        case Kind.CPUS:
            return _cpus(value, place)
        case Kind.PATH:
            return _path(_text(value, place, "a path"), place, directory)
        case Kind.DRIVE:
            return _drive(_text(value, place, "a drive"), place)
        case Kind.PLAIN:
            return _plain(key, value, place, table)


def _plain(key: Declared, value: object, place: str, table: TableReader) -> object:
    if key.item is None:
        return _one(key, key.hint, value, place, table)
    if not isinstance(value, list):
        raise Wrong(place, f"is {_what(value)}, not a list", "write it in brackets: [ … ]")
    return tuple(_one(key, key.item, item, f"{place}[{index}]", table) for index, item in enumerate(value))


def _one(key: Declared, hint: Any, value: object, place: str, table: TableReader) -> object:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return table(hint, value, place)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _choice(hint, value, place)
    if hint is bool:
        if not isinstance(value, bool):
            raise Wrong(place, f"is {_what(value)}, not true or false", "write true or false, without quotes")
        return value
    if hint is int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise Wrong(place, f"is {_what(value)}, not a whole number", "write a number without quotes")
        return _within(key, value, place)
    text = _text(value, place, "text")
    if key.pattern and re.fullmatch(key.pattern, text) is None:
        raise Wrong(place, f"'{text}' is not of the form {key.pattern}", key.words)
    return text


def _choice(choices: type[StrEnum], value: object, place: str) -> StrEnum:
    names = [str(choice) for choice in choices if str(choice)]
    remedy = f"use {' or '.join(names)}" if len(names) < 3 else f"use one of {', '.join(names)}"
    text = _text(value, place, "one word of a few", remedy)
    try:
        return choices(text)
    except ValueError:
        raise Wrong(place, f"'{text}' is not known here{nearest(text, names)}", remedy) from None


def _text(value: object, place: str, wanted: str, remedy: str = "write it in quotes") -> str:
    if not isinstance(value, str):
        raise Wrong(place, f"is {_what(value)}, not {wanted}", remedy)
    if "\0" in value:
        # No argument of a program and no path of the kernel can hold one.
        raise Wrong(place, "holds a NUL character", "take it out")
    return value


def _size(value: object, place: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return parse_size(_text(value, place, "a size", "write '4GiB', or a number of bytes"))
    except ValueError as error:
        raise Wrong(place, str(error)) from None


def _within(key: Declared, number: int, place: str) -> int:
    shown: Callable[[int], str] = format_size if key.kind is Kind.SIZE else str
    maximum = LARGEST if key.maximum is None else key.maximum
    if number < key.minimum:
        raise Wrong(place, f"{shown(number)} is less than {shown(key.minimum)}", f"write {shown(key.minimum)} or more")
    if number > maximum:
        raise Wrong(place, f"{shown(number)} is more than {shown(maximum)}", f"write {shown(maximum)} or less")
    return number


def _cpus(value: object, place: str) -> frozenset[int]:
    try:
        return parse_cpus(_text(value, place, "a set of processors", "write '0-3,8' or '0x3'"))
    except ValueError as error:
        raise Wrong(place, str(error)) from None


def _path(text: str, place: str, directory: str) -> str:
    if not text.strip():
        raise Wrong(place, "is empty", "name a path, or leave the key out")
    if text.startswith("~"):
        # Whose home it is would depend on sudo: the same spec would mean two files.
        raise Wrong(place, f"'{text}' has a '~', which is not expanded here", "write the whole path")
    return str(PurePosixPath(directory) / text)


def _drive(text: str, place: str) -> str:
    try:
        return normal_drive(text)
    except ValueError as error:
        raise Wrong(place, str(error)) from None


def _what(value: object) -> str:
    """A TOML value in words: 'text ("5")', 'a table'."""
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return f'text ("{value[:40]}")'
        case int() | float():
            return f"a number ({value})" if abs(value) < 1e20 else "a huge number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"
