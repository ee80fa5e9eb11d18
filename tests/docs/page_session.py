"""The sessions of a page, done again: its files are written, its commands are run, and what they print is compared.

The comparison is loose where two runs differ by nature (seconds, dates, process ids, digests of random content, numbers
of NVMe controllers, which are probed in parallel), and a line with only `…` stands for any lines. Everything else is to
be printed as the page has it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from handbook_pages import Block, Command, blocks, commands

#: What differs from run to run, and what stands in its place.
_MASKS = (
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"), "DATE"),
    (re.compile(r"\b\d+\.\d+ s\b"), "SECONDS"),
    (re.compile(r"\b(process +)\d+"), r"\1PID"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b[0-9a-f]{24,}\b"), "DIGEST"),
    (re.compile(r"\bnvme\d+"), "nvmeN"),
    # A drive that was pulled and put back is in a group of another number.
    (re.compile(r"(IOMMU group |QEMU NVMe Ctrl +\S+ +)\d+"), r"\1GROUP"),
    (re.compile(r" +$"), ""),
)
#: Runs one command of shell, and gives its exit status and what it printed.
Shell = Callable[[str], tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A command that printed something else than its page has."""

    command: Command
    printed: str

    def __str__(self) -> str:
        there = "\n".join(self.command.output)
        return f"{self.command.place}\n--- the page has\n{there}\n--- printed was\n{self.printed}"


def session(page: Path) -> Iterator[Block]:
    """The blocks of a page that are written or run, in their order."""
    return (block for block in blocks(page) if block.mark)


def play(page: Path, directory: Path, shell: Shell) -> Iterator[Difference]:
    """Run the session of a page in a directory, which the page calls /root."""
    status = 0
    for block in session(page):
        if block.mark.startswith("file: "):
            (directory / block.mark.removeprefix("file: ")).write_text(block.text + "\n")
            continue
        for command in commands(block):
            if command.words == "echo $?":
                printed = str(status)
            else:
                status, printed = shell(command.words)
            if not same(command.output, printed.replace(str(directory), "/root")):
                yield Difference(command=command, printed=printed)


def same(page: tuple[str, ...], printed: str) -> bool:
    """Whether a command printed what its page has."""
    pattern = "".join(r"(?:.*\n)*?" if line.strip() == "…" else re.escape(_masked(line)) + r"\n" for line in page)
    lines = "".join(f"{_masked(line)}\n" for line in printed.splitlines())
    return re.fullmatch(pattern, lines) is not None


def _masked(line: str) -> str:
    for pattern, word in _MASKS:
        line = pattern.sub(word, line)
    return re.sub(r" {2,}", "  ", line)


def in_directory(directory: Path, shell: Shell) -> Shell:
    """The same shell, in a directory."""

    def run(words: str) -> tuple[int, str]:
        before = Path.cwd()
        os.chdir(directory)
        try:
            return shell(words)
        finally:
            os.chdir(before)

    return run
