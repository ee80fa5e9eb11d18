"""Frozen dataclasses to plain JSON values and back, driven by their type hints.

Facts, steps and claims are stored and replayed through this one place. A union of dataclasses is told apart by the
key `type`, which holds the class name; an unknown key or a wrong shape raises ValueError with its path.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union, cast

from nvlane.model.pci import PciAddress

T = TypeVar("T")


def encode(value: Any) -> Any:
    """A value of our types as JSON has it: dicts, lists, strings, numbers, booleans, None."""
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, PciAddress):
        return str(value)
    cls: type = type(value)
    if (names := _field_names(cls)) is not None:
        fields = {name: encode(getattr(value, name)) for name in names}
        return {"type": cls.__name__, **fields} if getattr(cls, "TAGGED", False) else fields
    if isinstance(value, Mapping):
        return {_key(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(encode(item) for item in value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


@functools.cache
def _field_names(cls: type) -> tuple[str, ...] | None:
    """The fields of a dataclass, None for any other class: a plan asks a hundred thousand times."""
    return tuple(f.name for f in dataclasses.fields(cls)) if dataclasses.is_dataclass(cls) else None


def _key(key: Any) -> str:
    return str(key.value if isinstance(key, enum.Enum) else key)


def decode(cls: type[T], data: Any, *, place: str = "$") -> T:
    """The inverse of `encode` for a class or any hint made of our classes. Raises ValueError with the place."""
    return cast(T, _decode(cls, data, place))


def _decode(hint: Any, data: Any, place: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any or hint is object:
        return data
    if origin in (Union, types.UnionType):
        return _decode_union(typing.get_args(hint), data, place)
    if origin is typing.Literal:
        return _expect(data in typing.get_args(hint), data, hint, place)
    if origin in (tuple, frozenset, list):
        return _decode_sequence(origin, typing.get_args(hint), data, place)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(typing.get_args(hint), data, place)
    if hint is None or hint is type(None):
        return _expect(data is None, data, "null", place)
    if hint is PciAddress:
        _expect(isinstance(data, str), data, "a PCI address", place)
        return PciAddress.parse(data)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        try:
            return hint(data)
        except ValueError:
            raise ValueError(f"{place}: {data!r} is none of {', '.join(str(m.value) for m in hint)}") from None
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(cast(type, hint), data, place)
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if hint is int:
        return _expect(isinstance(data, int) and not isinstance(data, bool), data, "a whole number", place)
    return _expect(isinstance(data, hint), data, hint, place)


def _expect(good: bool, data: Any, hint: Any, place: str) -> Any:
    if not good:
        name = hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))
        raise ValueError(f"{place}: {data!r} is not {name}")
    return data


def _decode_union(options: tuple[Any, ...], data: Any, place: str) -> Any:
    if data is None and type(None) in options:
        return None
    classes = [option for option in options if dataclasses.is_dataclass(option)]
    if isinstance(data, dict) and "type" in data:
        for option in classes:
            if cast(type, option).__name__ == data["type"]:
                return _decode_dataclass(cast(type, option), data, place)
        raise ValueError(f"{place}: unknown type '{data['type']}'")
    errors: list[str] = []
    for option in options:
        try:
            return _decode(option, data, place)
        except (ValueError, TypeError) as error:
            errors.append(str(error))
    raise ValueError("; ".join(errors))


def _decode_sequence(origin: Any, args: tuple[Any, ...], data: Any, place: str) -> Any:
    _expect(isinstance(data, list), data, "a list", place)
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        _expect(len(data) == len(args), data, f"a list of {len(args)}", place)
        return tuple(_decode(a, item, f"{place}[{i}]") for i, (a, item) in enumerate(zip(args, data, strict=True)))
    return origin(_decode(args[0], item, f"{place}[{i}]") for i, item in enumerate(data))


def _decode_mapping(args: tuple[Any, ...], data: Any, place: str) -> Any:
    _expect(isinstance(data, dict), data, "a table", place)
    key_hint, value_hint = args
    return {
        (int(key) if key_hint is int else _decode(key_hint, key, place)): _decode(value_hint, item, f"{place}.{key}")
        for key, item in data.items()
    }


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode_dataclass(cls: type, data: Any, place: str) -> Any:
    _expect(isinstance(data, dict), data, "a table", place)
    hints = _hints(cls)
    names = {field.name for field in dataclasses.fields(cls) if field.init}
    for key in data:
        if key not in names and key != "type":
            raise ValueError(f"{place}: unknown key '{key}' for {cls.__name__}")
    values = {name: _decode(hints[name], data[name], f"{place}.{name}") for name in names if name in data}
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{place}: {error}") from None
