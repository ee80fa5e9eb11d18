"""The journal of one run: what was about to be done, and what was done, on disk before the next thing happens.

A file of JSON lines, `{"crc": "89abcdef", "record": {...}}`, each on disk (fsync) when `append` returns; the CRC-32 is
over the record's JSON text with sorted keys and no spaces. When a crash cut the last line short, it is dropped: the
thing that it announced had not begun. A damaged line before the last is no crash but a fault, and stops everything.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from nvlane.apply.lock import locked_directory
from nvlane.apply.operations.found import Found, Result
from nvlane.apply.record import Begin, Done, End, Failed, Intent, Kept, Note, Record, Undo, Undone
from nvlane.model.codec import decode, encode
from nvlane.model.errors import HostError
from nvlane.plan.step import Inverse, Step

JOURNAL: Final = "journal.jsonl"
#: Hooks of the fault tests: the process kills itself right after its Nth record is on disk, or in the middle of it.
DIE_AFTER: Final = "NVLANE_DIE_AFTER_RECORD"
DIE_TORN: Final = "NVLANE_DIE_TORN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One step of a run as its records tell it. `tried` is the last inverse that was begun, and what it found."""

    n: int
    boot_id: str
    step: Step
    found: Found
    result: Result | None = None
    done: bool = False
    error: str = ""
    tried: tuple[Inverse, Found] | None = None
    undone: bool = False
    kept: str = ""


def read_records(path: Path) -> tuple[list[Record], int]:
    """All whole records of a journal, and how many bytes they take; what follows is a last record that was cut short.

    Raises HostError with line and file for a record that is damaged in any other way.
    """
    data = path.read_bytes()
    records: list[Record] = []
    position = 0
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        whole = position + len(line) < len(data)  # its newline is there
        try:
            records.append(_parse(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise HostError(
                f"{path}, line {number}: {error}",
                remedy=f"the {number - 1} records before it are good: look at them, put back by hand what they name "
                f"(nvlane host status shows what is there now), then remove {path.parent}",
            ) from error
        if not whole:
            # Its text is good, but the crash came before its newline: the same as a torn one, for append() adds lines.
            records.pop()
            break
        position += len(line) + 1
    return records, position


def _parse(line: bytes) -> Record:
    try:
        frame = json.loads(line)
        record, crc = frame["record"], frame["crc"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError("this is no journal record") from error
    if _crc(_text(record)) != crc:
        raise ValueError("the record does not fit its checksum")
    return decode(Record, record)  # type: ignore[arg-type]


def _text(record: Any) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable (fsync(2) of a file does not cover its name)."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Journal:
    """One run's journal, held open and locked. Made by `Journal.create` and `Journal.open`, as context managers."""

    def __init__(self, directory: Path, descriptor: int, records: list[Record]) -> None:
        self.directory = directory
        self.records = records
        self._descriptor = descriptor
        self._written = 0
        #: Called with the number of records that this process has written so far; tests cut runs short here.
        self.after_record: Callable[[int], None] = _die_if_asked

    @classmethod
    @contextlib.contextmanager
    def create(cls, directory: Path, begin: Begin) -> Iterator[Journal]:
        """Start a journal in a directory that is there and has none."""
        with locked_directory(directory, what=f"the run '{begin.run}'"):
            descriptor = os.open(directory / JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            try:
                sync_directory(directory)
                sync_directory(directory.parent)
                journal = cls(directory, descriptor, [])
                journal.append(begin)
                yield journal
            finally:
                os.close(descriptor)

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path) -> Iterator[Journal]:
        """Go on with a journal. A last record that was cut short is cut away."""
        with locked_directory(directory, what=f"the run '{directory.name}'"):
            path = directory / JOURNAL
            records, size = read_records(path)
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                if size != path.stat().st_size:
                    os.ftruncate(descriptor, size)
                    os.fsync(descriptor)
                yield cls(directory, descriptor, records)
            finally:
                os.close(descriptor)

    def append(self, record: Record) -> None:
        """Write one record; it is on disk when this returns."""
        data = encode(record)
        text = _text(data)
        line = f'{{"crc":"{_crc(text)}","record":{text}}}\n'.encode()
        if os.environ.get(DIE_TORN) == str(self._written + 1):
            os.write(self._descriptor, line[: len(line) // 2])
            os.fsync(self._descriptor)
            os.kill(os.getpid(), signal.SIGKILL)
        self._write(line)
        self._written += 1
        self.records.append(record)
        self.after_record(self._written)

    def _write(self, line: bytes) -> None:
        before = os.fstat(self._descriptor).st_size
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._descriptor)
        except OSError as error:
            # Half a record must not stand before those that still come.
            os.ftruncate(self._descriptor, before)
            raise HostError(
                f"cannot write {self.directory / JOURNAL}: {error.strerror}", remedy="make room there"
            ) from error

    def note(self, key: str, value: Any) -> None:
        """Remember `value` (our types, or JSON) under `key`; the last one counts."""
        self.append(Note(key=key, value=encode(value)))

    @property
    def begin(self) -> Begin | None:
        """The first record; None when the run was killed before it was on disk."""
        return begin_of(self.records)

    def notes(self) -> dict[str, Any]:
        return notes_of(self.records)

    def entries(self) -> tuple[Entry, ...]:
        return entries_of(self.records)

    @property
    def next_n(self) -> int:
        return sum(isinstance(record, Intent) for record in self.records)


def begin_of(records: list[Record]) -> Begin | None:
    return records[0] if records and isinstance(records[0], Begin) else None


def notes_of(records: list[Record]) -> dict[str, Any]:
    return {record.key: record.value for record in records if isinstance(record, Note)}


def entries_of(records: list[Record]) -> tuple[Entry, ...]:
    """The steps of a run in the order in which they were begun."""
    entries: dict[int, Entry] = {}
    for record in records:
        match record:
            case Intent():
                entries[record.n] = Entry(n=record.n, boot_id=record.boot_id, step=record.step, found=record.found)
            case Kept():
                entries[record.n] = replace(entries[record.n], result=record.result)
            case Done():
                entries[record.n] = replace(entries[record.n], done=True)
            case Failed():
                entries[record.n] = replace(entries[record.n], error=record.error)
            case Undo():
                entries[record.n] = replace(entries[record.n], tried=(record.inverse, record.found))
            case Undone():
                entries[record.n] = replace(entries[record.n], undone=True, kept=record.kept)
            case Begin() | Note() | End():
                continue
    return tuple(entries.values())


def _die_if_asked(written: int) -> None:
    if os.environ.get(DIE_AFTER) == str(written):
        os.kill(os.getpid(), signal.SIGKILL)
