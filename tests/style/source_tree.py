"""The tree's own sources, parsed once for the tests of style."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "src" / "nvlane"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Python file. `room` is the first directory below nvlane ('' for the package itself and for tests)."""

    path: Path
    name: str
    room: str
    text: str
    tree: ast.Module


@functools.cache
def package() -> tuple[Source, ...]:
    """Every module of nvlane."""
    return tuple(_read(path) for path in sorted(PACKAGE.rglob("*.py")))


@functools.cache
def everything() -> tuple[Source, ...]:
    """Every module of nvlane, and every test."""
    return package() + tuple(_read(path) for path in sorted((ROOT / "tests").rglob("*.py")))


def _read(path: Path) -> Source:
    text = path.read_text()
    parts = path.relative_to(PACKAGE).parts if path.is_relative_to(PACKAGE) else ()
    return Source(
        path=path,
        name=str(path.relative_to(ROOT)),
        room=parts[0] if len(parts) > 1 else "",
        text=text,
        tree=ast.parse(text),
    )


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that a module imports, in functions too."""
    for node in ast.walk(source.tree):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield node.lineno, name.name
            case ast.ImportFrom(module=module, names=names, level=0):
                for name in names:
                    yield node.lineno, f"{module}.{name.name}"
            case ast.ImportFrom():
                raise AssertionError(f"{source.name}:{node.lineno}: imports are absolute")


def calls(source: Source) -> Iterator[tuple[ast.Call, str]]:
    """(call, dotted name) of every call by a plain name."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)
