"""Where runs are kept: one directory for each machine that is up, `host` for `nvlane host`.

::

    STATE/runs/NAME/journal.jsonl     /var/lib/nvlane, or $XDG_STATE_HOME/nvlane; NVLANE_STATE_DIR overrides
    RUNTIME/NAME/*.sock, *.log        /run/nvlane, or $XDG_RUNTIME_DIR/nvlane; NVLANE_RUNTIME_DIR overrides

When the last run goes, so do the directories that nvlane made for it: STATE/made-here.json remembers which.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nvlane import __version__
from nvlane.apply.journal import JOURNAL, Entry, Journal, begin_of, entries_of, notes_of, read_records
from nvlane.apply.lock import locked_directory
from nvlane.apply.operations.found import FoundFunction, FoundModule, FoundShared
from nvlane.apply.operations.processes import boot_id
from nvlane.apply.record import Begin
from nvlane.facts.shape import Drive
from nvlane.model.errors import HostError
from nvlane.model.host import HostReader
from nvlane.model.pci import PciAddress
from nvlane.plan.step import BindDriver

#: The run of `nvlane host`; machine names may not be this one.
HOST_RUN: Final = "host"
_MADE: Final = "made-here.json"
#: Seconds that one step of another nvlane on this host may take until we give up waiting for it.
_HOST_DEADLINE: Final = 120.0


def state_directory(host: HostReader) -> str:
    """The directory of journals for this user."""
    return host.environment("NVLANE_STATE_DIR") or _default(host, "/var/lib/nvlane", "XDG_STATE_HOME", ".local/state")


def runtime_directory(host: HostReader) -> str:
    """The directory of sockets and logs for this user."""
    uid = host.effective_uid()
    return host.environment("NVLANE_RUNTIME_DIR") or (
        "/run/nvlane" if uid == 0 else f"{host.environment('XDG_RUNTIME_DIR') or f'/run/user/{uid}'}/nvlane"
    )


def _default(host: HostReader, root: str, variable: str, below_home: str) -> str:
    if host.effective_uid() == 0:
        return root
    base = host.environment(variable) or f"{host.environment('HOME') or '/'}/{below_home}"
    return f"{base}/nvlane"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as its journal tells it, read without its lock. `error`: the journal itself is damaged."""

    name: str
    path: Path
    begin: Begin | None = None
    entries: tuple[Entry, ...] = ()
    notes: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def outstanding(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if not entry.undone)


def modules_of_others(run: Path) -> dict[str, str]:
    """Modules that the other runs beside `run` (a run's directory) had to load -> the name of that run."""
    return {
        module: name
        for name in _names(run.parent)
        if name != run.name
        for entry in _read(run.parent / name).outstanding
        if isinstance(entry.found, FoundModule)
        for module in entry.found.missing
    }


def shared_of_others(run: Path) -> dict[str, str]:
    """What the other runs beside `run` had to make and may share (`FoundShared`) -> the name of that run."""
    return {
        entry.found.name: name
        for name in _names(run.parent)
        if name != run.name
        for entry in _read(run.parent / name).outstanding
        if isinstance(entry.found, FoundShared) and entry.found.missing
    }


def _names(runs: Path) -> tuple[str, ...]:
    try:
        # A name with a dot in front is a run that is just being removed.
        return tuple(sorted(path.name for path in runs.iterdir() if path.is_dir() and path.name[0] != "."))
    except FileNotFoundError:
        return ()


def _read(path: Path) -> RunRecord:
    name = path.name
    try:
        records, _ = read_records(path / JOURNAL)
    except FileNotFoundError:
        return RunRecord(name=name, path=path)  # killed between the directory and the journal
    except (HostError, OSError) as error:
        return RunRecord(name=name, path=path, error=str(error))
    return RunRecord(
        name=name, path=path, begin=begin_of(records), entries=entries_of(records), notes=notes_of(records)
    )


class Store:
    """All runs of one state directory. `runtime` is made and removed together with it."""

    def __init__(self, state: Path, runtime: Path) -> None:
        self.state = state
        self.runtime = runtime
        self._runs = state / "runs"

    @classmethod
    def of(cls, host: HostReader) -> Store:
        return cls(Path(state_directory(host)), Path(runtime_directory(host)))

    def names(self) -> tuple[str, ...]:
        return _names(self._runs)

    def has(self, name: str) -> bool:
        return (self._runs / name).is_dir()

    def read(self, name: str) -> RunRecord:
        """A run as it stands now; another nvlane may be at work on it."""
        return _read(self._runs / name)

    def runs(self) -> tuple[RunRecord, ...]:
        return tuple(self.read(name) for name in self.names())

    @contextlib.contextmanager
    def create(self, name: str, host: HostReader, *, spec: str = "") -> Iterator[Journal]:
        """Begin a run. HostError when there is one of this name: it is up, or was left by a crash."""
        self._make_directories(name)
        begin = Begin(
            run=name,
            boot_id=boot_id(host),
            version=__version__,
            hostname=host.read_text("/proc/sys/kernel/hostname").strip(),
            time=time.time(),
            spec=spec,
        )
        with Journal.create(self._runs / name, begin) as journal:
            yield journal

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Journal]:
        """Go on with a run, alone: HostError names the process that is at it already."""
        path = self._runs / name
        if path.is_dir() and not (path / JOURNAL).exists():
            # Killed between the directory and the journal: nothing was done yet, so an empty journal tells the truth.
            (path / JOURNAL).touch(mode=0o600)
        with Journal.open(path) as journal:
            yield journal

    @contextlib.contextmanager
    def host_lock(self) -> Iterator[None]:
        """Held for each single step: two runs must not both read a count, and then both write it."""
        with locked_directory(self._runs, what="this host", deadline=_HOST_DEADLINE):
            yield

    def remove(self, journal: Journal) -> None:
        """Forget a run, of which the caller holds the journal open, and prune what was made for it."""
        # rename first: from one moment to the next the run is there whole, or it is not there.
        doomed = self._runs / f".{journal.directory.name}.{os.getpid()}"
        journal.directory.rename(doomed)
        shutil.rmtree(doomed)
        self._prune()

    def remembered_drives(self) -> dict[PciAddress, Drive]:
        """Drives that nvlane has taken from the kernel, as they were before, for the facts."""
        found: dict[PciAddress, Drive] = {}
        for run in self.runs():
            for entry in run.outstanding:
                if isinstance(entry.step, BindDriver) and isinstance(entry.found, FoundFunction) and entry.found.drive:
                    found[entry.step.address] = entry.found.drive
        return found

    def _make_directories(self, name: str) -> None:
        made = [str(p) for path in (self.runtime, self.state) for p in (path, *path.parents) if not p.exists()]
        try:
            self.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            if made:
                # Outermost first, and also what an earlier run had to make.
                (self.state / _MADE).write_text(json.dumps(sorted({*made, *self._made()}, key=len)), encoding="utf-8")
            # The user that libvirt runs QEMU as passes through to sockets; what may be read there is each machine's.
            self.runtime.mkdir(mode=0o711, parents=True, exist_ok=True)
            self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self._runs / name).mkdir(mode=0o700)
        except FileExistsError as error:
            raise HostError(
                f"'{name}' is up already, or was left by a crash ({self._runs / name})",
                remedy=f"nvlane status {name} shows it; nvlane down {name} or nvlane restore ends it",
            ) from error
        except OSError as error:
            raise HostError(
                f"cannot make {error.filename}: {error.strerror}", remedy="run as root, or set NVLANE_STATE_DIR"
            ) from error

    def _made(self) -> list[str]:
        try:
            made = json.loads((self.state / _MADE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return []  # none, or cut short by a crash: then a directory stays, which harms nobody
        return [str(path) for path in made]

    def _prune(self) -> None:
        """Remove what nvlane made, from the inside out, as far as it is empty by now."""
        for doomed in self._runs.glob(".*"):
            shutil.rmtree(doomed, ignore_errors=True)  # by this or an earlier remove() that was cut short
        try:
            self._runs.rmdir()
        except OSError:
            return  # other runs are there
        made = self._made()
        (self.state / _MADE).unlink(missing_ok=True)
        for path in reversed(made):
            with contextlib.suppress(OSError):  # not empty, or gone: both are as they should be
                Path(path).rmdir()
