"""The line of every place in a TOML text, so that an error can name it.

tomllib keeps no positions. This scanner runs only when there is an error to place, and over text that tomllib
has accepted, so it checks nothing itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# As the ABNF of TOML 1.0 has it: triple quotes before single ones, anything else is a bare word.
_TOKEN: Final = re.compile(
    r"""(?P<comment>\#[^\n]*)|(?P<newline>\n)|(?P<space>[ \t\r]+)"""
    r"""|(?P<string>"{3}(?:\\.|[^\\])*?"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
    r"""|(?P<mark>[\[\]{}=,])|(?P<dot>\.)|(?P<word>[^\s\[\]{}=,.\#"']+)""",
    re.DOTALL,
)


def outline(text: str) -> Mapping[str, int]:
    """Place ('machine', 'lane[1].namespaces[0].size') to its line, from 1."""
    scanner = _Scanner(text)
    try:
        scanner.document()
    except (IndexError, RecursionError):
        # It ended in the middle of something, or nests deeper than calls may: what came before stands.
        return scanner.lines
    return scanner.lines


def nearest_line(lines: Mapping[str, int], place: str) -> int:
    """The line of a place or of the innermost table around it; 0 when none is known."""
    while place:
        if place in lines:
            return lines[place]
        place = re.sub(r"(\.[^.\[\]]*|\[\d+\]|^[^.\[\]]*)$", "", place, count=1)
    return 0


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self._counts: dict[str, int] = {}
        self._tokens: list[tuple[str, str, int]] = []
        self._next = 0
        line = 1
        for match in _TOKEN.finditer(text):
            kind = match.lastgroup or ""
            if kind not in ("comment", "space"):
                self._tokens.append((kind, match[0], line))
            line += match[0].count("\n")

    def document(self) -> None:
        table = ""
        while self._next < len(self._tokens):
            kind, text, line = self._tokens[self._next]
            if kind == "newline":
                self._next += 1
            elif text == "[":
                table = self._header()
                self.lines.setdefault(table, line)
            else:
                self._pair(table)

    def _header(self) -> str:
        """[a.b] or [[a.b]]: the place that the lines below belong to."""
        array = self._tokens[self._next + 1][1] == "["
        self._next += 2 if array else 1
        names = self._names("]")
        self._next += 2 if array else 1
        place = ""
        for index, name in enumerate(names):
            place = f"{place}.{name}" if place else name
            last = index + 1 == len(names)
            if last and array:
                self._counts[place] = self._counts.get(place, -1) + 1
            if place in self._counts:
                place = f"{place}[{self._counts[place]}]"
        return place

    def _names(self, end: str) -> list[str]:
        names: list[str] = []
        while self._tokens[self._next][1] != end:
            kind, text, _ = self._tokens[self._next]
            if kind == "word":
                names.append(text)
            elif kind == "string":
                names.append(text[1:-1])
            self._next += 1
        return names

    def _pair(self, table: str) -> None:
        line = self._tokens[self._next][2]
        place = table
        for name in self._names("="):
            place = f"{place}.{name}" if place else name
            self.lines.setdefault(place, line)
        self._next += 1
        self._value(place)

    def _value(self, place: str) -> None:
        _, text, line = self._tokens[self._next]
        self.lines.setdefault(place, line)
        if text == "[":
            self._array(place)
        elif text == "{":
            self._inline_table(place)
        else:
            while self._next < len(self._tokens) and self._tokens[self._next][0] not in ("newline", "mark"):
                self._next += 1

    def _array(self, place: str) -> None:
        self._next += 1
        index = 0
        while self._tokens[self._next][1] != "]":
            kind, text, _ = self._tokens[self._next]
            if kind == "newline" or text == ",":
                self._next += 1
            else:
                self._value(f"{place}[{index}]")
                index += 1
        self._next += 1

    def _inline_table(self, place: str) -> None:
        self._next += 1
        while self._tokens[self._next][1] != "}":
            kind, text, _ = self._tokens[self._next]
            if kind == "newline" or text == ",":
                self._next += 1
            else:
                self._pair(place)
        self._next += 1
