"""The file of a measurement: written anew after every run, whole or not at all, and gone on with later."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from nvlane.bench.result import Result, from_json, to_json
from nvlane.model.errors import HostError, SpecError


class Kept:
    """A result and its file."""

    def __init__(self, path: Path, result: Result) -> None:
        self.path = path
        self.result = result

    def take(self, result: Result) -> None:
        """Keep a newer state. Raises HostError when it cannot be written."""
        self.result = result
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            new.write_text(json.dumps(to_json(result), ensure_ascii=False) + "\n", encoding="utf-8")
            new.replace(self.path)
        except OSError as error:
            raise HostError(f"cannot write {self.path}: {error.strerror}", remedy="name another --output") from error


def load(path: Path) -> Result:
    """A result from a file. Raises SpecError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message = f"cannot read it: {error.strerror}"
        raise SpecError(message, source=str(path), remedy="name a file that nvlane bench wrote") from error
    except ValueError as error:
        raise SpecError(f"holds no JSON: {error}", source=str(path), remedy="name a file of nvlane bench") from error
    return from_json(value, str(path))


def open_or_begin(path: Path, new: Result, *, fresh: bool) -> Kept:
    """The file as it is, to go on with, when it is of the same series; else a new one, where nothing would be lost.

    Raises SpecError when the file holds another measurement."""
    if not path.parent.is_dir():
        raise SpecError(f"there is no directory {path.parent}", place="--output", remedy="make it, or name another")
    if fresh or not path.exists():
        return Kept(path, new)
    old = load(path)
    if old.series != new.series:
        differing = [f.name for f in dataclasses.fields(old.series) if _of(old, f.name) != _of(new, f.name)]
        raise SpecError(
            f"holds another measurement ({', '.join(differing)} differ)",
            source=str(path),
            remedy="name another file with --output, or overwrite it with --fresh",
        )
    return Kept(path, old)


def _of(result: Result, name: str) -> object:
    return getattr(result.series, name)
