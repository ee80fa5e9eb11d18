"""What the tests of this directory do with nvlane: they call its program, in this process or in one of its own."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvlane.apply import process
from nvlane.apply.linux import LinuxHost
from nvlane.apply.snapshot import HostSnapshot, differences, host_snapshot
from nvlane.apply.store import Store
from nvlane.cli.main import run
from nvlane.verify.probe import ProbeGuest
from nvlane.wire.qmp import Qmp

HOST = LinuxHost()
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Said:
    """How nvlane ended and what it said."""

    words: tuple[str, ...]
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def ok(self) -> Said:
        assert self.status == 0, f"{self}"
        return self

    def __str__(self) -> str:
        return f"nvlane {' '.join(self.words)} ended with {self.status}\n{self.err[-6000:]}\n{self.out[-1500:]}"


def nvlane(*words: str | Path) -> Said:
    """The program's entry point, in this process: a new Python takes seconds where every instruction is emulated."""
    texts = tuple(str(word) for word in words)
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run(texts)
        except SystemExit as end:
            status = int(end.code or 0)
    return Said(words=texts, status=status, out=out.getvalue(), err=err.getvalue())


def nvlane_alone(
    *words: str | Path, under: Sequence[str] = (), env: dict[str, str] | None = None, timeout: float = 300
) -> Said:
    """The program as a process of its own; `under` is a command that runs it (setpriv, unshare, ...)."""
    texts = tuple(str(word) for word in words)
    argv = [*under, sys.executable, "-m", "nvlane", *texts]
    done = process.run(argv, timeout=timeout, check=False, env=env)
    return Said(words=texts, status=done.returncode, out=done.stdout, err=done.stderr)


def write_spec(directory: Path, name: str, *lanes: str, **machine: object) -> Path:
    """A spec file: a small machine, unless `machine` says otherwise, and the tables of its lanes (TOML text)."""
    table = {"name": name, "memory": "256MiB", "cpus": 1, **machine}
    lines = ["[machine]", *(f"{key} = {_toml(value)}" for key, value in table.items())]
    path = directory / f"{name}.toml"
    path.write_text("\n".join([*lines, *(f"\n[[lane]]\n{lane.strip()}" for lane in lanes)]) + "\n")
    return path


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
        case list() | tuple():
            return "[" + ", ".join(_toml(item) for item in value) + "]"
        case int():
            return str(value)
        case _:
            return json.dumps(str(value))


def snapshot() -> HostSnapshot:
    store = Store.of(HOST)
    return host_snapshot(HOST, str(store.state), str(store.runtime))


@contextlib.contextmanager
def unchanged() -> Iterator[None]:
    """The host is the same at the end as at the beginning."""
    before = snapshot()
    yield
    assert differences(before, snapshot()) == ()


@dataclass(frozen=True, kw_only=True)
class Up:
    """A machine that is up and verified: what `up --json` printed of it."""

    name: str
    said: Said

    @property
    def value(self) -> dict[str, Any]:
        value: dict[str, Any] = self.said.json[0]
        return value

    @property
    def runtime(self) -> Path:
        return Path(self.value["qmp"]).parent

    def found(self, lane: str, claim: str) -> str:
        """What was found for the one claim of a lane whose text holds these words."""
        fitting = [piece for piece in self.value["evidence"] if piece["lane"] == lane and claim in piece["claim"]]
        assert len(fitting) == 1, f"{lane}: {claim}: {[piece['claim'] for piece in self.value['evidence']]}"
        return str(fitting[0]["found"])

    def wrong(self, *lanes: str) -> list[dict[str, Any]]:
        """Evidence that is not as claimed, of these lanes or of all."""
        return [piece for piece in self.value["evidence"] if not piece["ok"] and (not lanes or piece["lane"] in lanes)]

    def monitor(self) -> Qmp:
        return Qmp.connect(self.value["qmp"])

    def guest(self) -> ProbeGuest:
        """A new connection. As everywhere, hello comes first and is repeated: while the guest still closes the port
        behind an earlier client, what arrives is lost."""
        guest = ProbeGuest(self.runtime / "probe.sock")
        guest.wait_until_up(deadline=60.0)
        return guest

    def read(self, path: str) -> str:
        """A file of the guest."""
        with self.guest() as guest:
            return str(guest.call("read_file", path=path)["text"])

    def status(self) -> dict[str, Any]:
        value: dict[str, Any] = nvlane("status", self.name, "--json").ok().json
        return value


@contextlib.contextmanager
def machine(spec: Path, *options: str, status: int = 0) -> Iterator[Up]:
    """Bring it up, and down again: the host is then as before, and what the guest wrote is read on the host."""
    before = snapshot()
    said = nvlane("up", "--json", *options, spec)
    words = f"{said}{_console(spec.stem)}"
    try:
        assert said.status == status, words
        yield Up(name=spec.stem, said=said)
    finally:
        ended = nvlane("down", "--json", spec.stem)
    assert ended.status == 0, str(ended)
    assert [proof for proof in ended.json[0]["proofs"] if not proof["ok"]] == []
    assert differences(before, snapshot()) == ()


def _console(name: str) -> str:
    log = Path(str(Store.of(HOST).runtime), name, "console.log")
    return "\nconsole:\n" + log.read_text(errors="replace")[-3000:] if log.exists() else ""


def alive(pid: int) -> bool:
    """Whether a process is there, and not only its zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def blank(dax_device: str) -> None:
    """Zeros where earlier tests had a file system: nvlane makes nothing anew that holds something."""
    descriptor = os.open(dax_device, os.O_RDWR)
    try:
        with mmap.mmap(descriptor, 64 * MIB) as front:
            for at in range(0, 64 * MIB, MIB):
                front[at : at + MIB] = bytes(MIB)
    finally:
        os.close(descriptor)
