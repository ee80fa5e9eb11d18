"""TOML to a Spec, driven by the declarations: nothing here knows a key but `machine`, `lane` and `kind`.

Every error is a SpecError that names the file, the line, the place and the nearest right word.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from nvlane.model.errors import SpecError
from nvlane.spec.declaration import declared, lane_classes
from nvlane.spec.document import Spec
from nvlane.spec.lane import Lane
from nvlane.spec.machine import Machine
from nvlane.spec.nearest import nearest
from nvlane.spec.outline import nearest_line, outline
from nvlane.spec.validate import check, check_together
from nvlane.spec.value import Wrong, read_value

#: A spec of ten thousand lanes is a tenth of this; anything longer is some other file.
_LONGEST: Final = 16 << 20


def read_text(path: str) -> str:
    """The text of a spec file. Raises SpecError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        message = f"cannot read it: {error.strerror}"
        raise SpecError(message, source=path, remedy="name a spec file that you can read") from error
    if len(data) > _LONGEST:
        raise SpecError(f"is longer than {_LONGEST >> 20} MiB", source=path, remedy="name a spec file (TOML)")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = "is not UTF-8 text, as TOML has to be"
        raise SpecError(message, source=path, line=line, remedy="save it as UTF-8") from error


def read_spec(path: str) -> Spec:
    """The spec in a file. Raises SpecError."""
    return parse_spec(read_text(path), path, str(Path(path).absolute().parent))


def read_specs(paths: Iterable[str]) -> tuple[Spec, ...]:
    """Several specs, checked each and against one another. Raises SpecError."""
    specs = tuple(read_spec(path) for path in paths)
    for index, problem in check_together(specs):
        raise SpecError(problem.message, place=problem.place, source=specs[index].source, remedy=problem.remedy)
    return specs


@functools.lru_cache(maxsize=64)  # one verb asks for the same file several times
def parse_spec(text: str, source: str, directory: str) -> Spec:
    """The spec in a text. `source` names it in messages; relative paths start at `directory` (absolute).

    Raises SpecError."""
    document = _Document(text, source, directory)
    spec = document.spec()
    for problem in check(spec):
        document.fail(problem.place, problem.message, problem.remedy)
    return spec


def parse_lane(text: str, source: str, directory: str) -> Lane:
    """The one [[lane]] of a text that has nothing else, for hot-plug. Raises SpecError."""
    return _Document(text, source, directory).only_lane()


class _Document:
    def __init__(self, text: str, source: str, directory: str) -> None:
        self._text = text
        self._source = source
        self._directory = directory
        self._data = self._toml()

    def fail(self, place: str, message: str, remedy: str = "") -> NoReturn:
        line = nearest_line(outline(self._text), place)
        raise SpecError(message, place=place, source=self._source, line=line, remedy=remedy) from None

    def _toml(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"\(at line (\d+), column \d+\)", str(error))
            line = int(found[1]) if found else self._text.count("\n") + 1
            raise SpecError(f"is not TOML: {error}", source=self._source, line=line) from None
        except (ValueError, RecursionError) as error:
            # Python refuses to convert integers of thousands of digits and to recurse without end.
            raise SpecError(f"is not a spec: {error}", source=self._source) from None

    def spec(self) -> Spec:
        self._only_keys("machine", "lane")
        if "machine" not in self._data:
            self.fail("", "the [machine] table is missing", 'add [machine] with at least name = "…"')
        machine = cast(Machine, self._table(Machine, self._data["machine"], "machine"))
        return Spec(machine=machine, lanes=self._lanes(), source=self._source)

    def only_lane(self) -> Lane:
        self._only_keys("lane")
        lanes = self._lanes()
        if len(lanes) != 1:
            message = f"has {len(lanes)} [[lane]] tables; one is attached at a time"
            self.fail("lane", message, "write one [[lane]] a file")
        for problem in check(Spec(machine=Machine(name="machine"), lanes=lanes)):
            self.fail(problem.place, problem.message, problem.remedy)
        return lanes[0]

    def _only_keys(self, *known: str) -> None:
        for name in self._data:
            if name not in known:
                self._unknown(name, known, "")

    def _lanes(self) -> tuple[Lane, ...]:
        tables = self._data.get("lane", [])
        if isinstance(tables, dict):
            self.fail("lane", "is one table", "write it with two brackets: [[lane]]")
        if not isinstance(tables, list):
            self.fail("lane", "is not a list of tables", "write [[lane]] and its keys below")
        return tuple(self._lane(table, f"lane[{index}]") for index, table in enumerate(tables))

    def _lane(self, data: object, place: str) -> Lane:
        kinds = lane_classes()
        if not isinstance(data, dict):
            self.fail(place, "is not a table", "write [[lane]] and its keys below")
        if "kind" not in data:
            self.fail(place, "the key 'kind' is missing", f"add kind = one of {', '.join(kinds)}")
        kind = data["kind"]
        if not isinstance(kind, str) or kind not in kinds:
            message = f"{kind!r} is no kind of lane{nearest(str(kind), kinds)}"
            self.fail(f"{place}.kind", message, f"use {', '.join(kinds)}")
        rest = {name: value for name, value in data.items() if name != "kind"}
        return cast(Lane, self._table(kinds[kind], rest, place))

    def _table(self, table: type, data: object, place: str) -> object:
        if not isinstance(data, dict):
            self.fail(place, "is not a table")
        keys = declared(table)
        values: dict[str, object] = {}
        for name, value in data.items():
            if name not in keys:
                self._unknown(name, keys, place)
            try:
                values[name] = read_value(keys[name], value, f"{place}.{name}", self._directory, self._table)
            except Wrong as wrong:
                self.fail(wrong.place, wrong.message, wrong.remedy)
        for key in keys.values():
            if key.required and key.name not in data:
                example = f' = "{key.example}"' if key.example else ""
                self.fail(place, f"the key '{key.name}' is missing", f"add {key.name}{example}: {key.words}")
        return table(**values)

    def _unknown(self, name: str, known: Iterable[str], place: str) -> NoReturn:
        known = tuple(known)
        guess = nearest(name, known)
        owners = [kind for kind, lane in lane_classes().items() if name in declared(lane)]
        if place.startswith("lane[") and "." not in place and owners and not guess:
            guess = f"; lanes of kind {', '.join(owners)} have it"
        remedy = f"the keys here are {', '.join(known)}"
        self.fail(f"{place}.{name}" if place else name, f"unknown key '{name}'{guess}", remedy)
