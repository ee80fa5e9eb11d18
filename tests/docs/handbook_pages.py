"""The pages of the handbook as values: fenced blocks, the commands of consoles, links, headings.

A block of language `console` holds commands, each after a prompt (`$ `, or `# ` for root), and what they printed. A
comment in the line above a block says what a test in the lab does with it: `<!-- file: NAME -->` writes it to a file,
`<!-- run -->` runs its commands and compares what they print.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>.*)$")
_MARK = re.compile(r"^<!-- (?P<mark>run|file: \S+) -->$")
_PROMPT = re.compile(r"^(?P<prompt>[$#]) (?P<words>\S.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block. `line` is that of its first fence; `mark` is `run`, `file: NAME` or empty."""

    page: Path
    line: int
    language: str
    text: str
    mark: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a console, and the lines that stand below it."""

    block: Block
    prompt: str
    words: str
    output: tuple[str, ...]

    @property
    def place(self) -> str:
        return f"{self.block.place}: {self.words}"


def handbook() -> list[Path]:
    """Every page of docs/."""
    return sorted(DOCS.rglob("*.md"))


def pages() -> list[Path]:
    """Every page of docs/, and those that stand at the top of the checkout, where the checkout has them."""
    return [*sorted(ROOT.glob("*.md")), *handbook()]


def blocks(page: Path) -> Iterator[Block]:
    fence, language, start, mark, body = "", "", 0, "", list[str]()
    before = ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        found = _FENCE.match(line)
        if fence and line == fence:
            yield Block(page=page, line=start, language=language, text="\n".join(body), mark=mark)
            fence = ""
        elif fence:
            body.append(line)
        elif found:
            fence, language, start, body = found["fence"], found["language"], number, []
            marked = _MARK.match(before)
            mark = marked["mark"] if marked else ""
        before = line


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console. One that ends in a backslash goes on in the next line."""
    prompt, words, output = "", "", list[str]()
    for line in block.text.splitlines():
        found = _PROMPT.match(line)
        if words.endswith("\\"):
            words = words[:-1] + line.strip()
        elif found:
            if words:
                yield Command(block=block, prompt=prompt, words=words, output=tuple(output))
            prompt, words, output = found["prompt"], found["words"], []
        else:
            output.append(line)
    if words:
        yield Command(block=block, prompt=prompt, words=words, output=tuple(output))


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks; the lines keep their numbers."""
    lines, fence = list[str](), ""
    for line in page.read_text().splitlines():
        found = _FENCE.match(line)
        if fence or found:
            lines.append("")
            fence = "" if fence and line == fence else fence or (found["fence"] if found else "")
        else:
            lines.append(line)
    return "\n".join(lines)


def anchors(page: Path) -> set[str]:
    """What a link to a heading of this page may say after the `#`, as GitHub and MyST make it of the heading."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE)
    plain = [re.sub(r"[`*]|\[(.+?)\]\(.*?\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}
