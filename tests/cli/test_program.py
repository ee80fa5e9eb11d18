"""The program as a person meets it: exit statuses, errors, signals, what it imports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import click
import pytest
from program import Program

from nvlane.cli import main
from nvlane.cli.output import Output, table
from nvlane.cli.verbs import VERBS
from nvlane.model.errors import CommandFailed

ROOT = Path(__file__).parent.parent.parent
FACTS = str(ROOT / "tests" / "cases" / "facts" / "server.json")
SPEC = '[machine]\nname = "vm"\n'


def test_version(nvlane: Program) -> None:
    done = nvlane("--version")
    assert (done.returncode, done.stdout) == (0, "nvlane 0.1.0\n")


def test_the_demo_says_which_libvirt_the_lab_has(nvlane: Program) -> None:
    done = nvlane("demo", "--connect", "qemu:///session")
    assert done.returncode == 2
    assert "the lab's libvirt has qemu:///system only" in done.stderr


def test_help_imports_no_verb() -> None:
    """Nor anything else that costs time before the first word is on the screen."""
    script = (
        "import sys\nfrom nvlane.cli.main import run\ntry:\n    run(['--help'])\nexcept SystemExit:\n"
        "    print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert "nvlane.cli.main" in loaded
    verbs = {f"nvlane.cli.{name}" for name in VERBS}
    assert not loaded & {*verbs, "rich", "qemu", "asyncio", "tomllib", "nvlane.facts", "nvlane.spec", "nvlane.apply"}


@pytest.mark.parametrize("name", list(VERBS))
def test_every_verb_is_there(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert command.help


@pytest.mark.parametrize("name", [name for name in VERBS if name not in ("demo", "lab", "host", "target", "fabrics")])
def test_every_verb_has_json(name: str) -> None:
    command = main.cli.get_command(click.Context(main.cli), name)
    assert command is not None
    assert any("--json" in parameter.opts for parameter in command.params)


def test_unknown_verb_names_the_nearest(nvlane: Program) -> None:
    done = nvlane("stauts")
    assert done.returncode == 2
    assert "did you mean 'status'?" in done.stderr
    assert not done.stdout


def test_spec_errors_have_their_place(nvlane: Program) -> None:
    (nvlane.directory / "a.toml").write_text(SPEC + 'memroy = "1GiB"\n')
    done = nvlane("plan", "a.toml")
    assert done.returncode == 2
    assert "a.toml:3: machine.memroy: unknown key 'memroy'; did you mean 'memory'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_as_json(nvlane: Program) -> None:
    (nvlane.directory / "a.toml").write_text(SPEC + 'memory = "1GB"\n')
    done = nvlane("plan", "a.toml", "--json")
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["kind"] == "SpecError"
    assert error["exit_status"] == 2
    assert (error["source"], error["line"], error["place"]) == ("a.toml", 3, "machine.memory")


def test_usage_errors_as_json(nvlane: Program) -> None:
    done = nvlane("plan", "--jsno", "--json")
    assert done.returncode == 2
    assert "No such option" in json.loads(done.stdout)["error"]["message"]


def test_a_spec_from_stdin(nvlane: Program) -> None:
    done = nvlane("plan", "-", "--facts", FACTS, "--json", stdin=SPEC)
    assert done.returncode == 0
    assert json.loads(done.stdout)[0]["machine_name"] == "vm"


def test_two_machines_with_one_name(nvlane: Program) -> None:
    for name in ("a.toml", "b.toml"):
        (nvlane.directory / name).write_text(SPEC)
    done = nvlane("plan", "a.toml", "b.toml", "--facts", FACTS)
    assert done.returncode == 2
    assert "b.toml: machine.name: a.toml has a machine 'vm' too" in done.stderr


def test_a_refused_plan_exits_3(nvlane: Program) -> None:
    lane = '[[lane]]\nkind = "passthrough"\ndrive = "serial:S4EVROOT000001"\n'
    done = nvlane("plan", "-", "--facts", FACTS, stdin=SPEC + lane)
    assert done.returncode == 3
    assert "[drive-root]" in done.stdout


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"hostname": 3}', "\0"])
def test_broken_facts(nvlane: Program, content: str) -> None:
    (nvlane.directory / "facts.json").write_text(content)
    done = nvlane("plan", "-", "--facts", "facts.json", stdin=SPEC)
    assert done.returncode == 2
    assert "facts.json: holds no facts" in done.stderr


def test_facts_can_be_saved_and_planned_against(nvlane: Program) -> None:
    spec = nvlane.directory / "a.toml"
    spec.write_text(SPEC + 'kernel = "/proc/self/exe"\n')
    saved = nvlane("doctor", "a.toml", "--facts", "facts.json", "--no-kvm-probe", "--json")
    assert saved.returncode == 0, saved.stderr
    assert json.loads(saved.stdout)["lanes"]
    facts = json.loads((nvlane.directory / "facts.json").read_text())
    assert [path["path"] for path in facts["paths"]] == ["/proc/self/exe"]
    first = nvlane("plan", "a.toml", "--facts", "facts.json", "--json")
    second = nvlane("plan", "a.toml", "--facts", "facts.json", "--json")
    assert first.stdout == second.stdout


def test_nothing_is_up(nvlane: Program) -> None:
    done = nvlane("status")
    assert (done.returncode, done.stdout) == (0, "")
    assert nvlane("status", "--json").stdout == "[]\n"
    gone = nvlane("down", "vm")
    assert gone.returncode == 1
    assert "there is no run 'vm'" in gone.stderr
    assert nvlane("restore").returncode == 0
    assert nvlane("restore", "vm").returncode == 1
    assert not nvlane.state.exists()


def test_reader_that_goes_away(nvlane: Program) -> None:
    """`nvlane schema | true`"""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        done = subprocess.run(
            nvlane.argv("schema"), stdout=closed, stderr=subprocess.PIPE, text=True, check=False, env=nvlane.environment
        )
    assert done.returncode in (1, 141)  # click ends with 1 where it writes itself
    assert not done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted(nvlane: Program, number: signal.Signals, status: int) -> None:
    """`plan -` waits for its spec; its first words on stderr say that it does."""
    process = nvlane.start("plan", "-")
    timer = threading.Timer(30.0, process.kill)
    timer.start()
    try:
        _wait_until_reading(process.pid)
        process.send_signal(number)
        _, errors = process.communicate()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    assert process.returncode == status
    assert "interrupted" in errors
    assert "Traceback" not in errors


def _wait_until_reading(pid: int) -> None:
    """Until the process sleeps in read(2) of its stdin: /proc/PID/wchan would need root, its syscall file does not."""
    file = Path(f"/proc/{pid}/syscall")
    while not file.read_text().startswith("0 0x0 "):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            raise AssertionError("it ended before it read")


def test_a_bug_becomes_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("impossible")

    monkeypatch.delenv("NVLANE_DEBUG", raising=False)
    monkeypatch.setattr(main.cli, "main", broken)
    assert main._guarded([], Output()) == 1
    words = capsys.readouterr().err
    assert "this is a bug in nvlane: RuntimeError: impossible" in words
    assert "NVLANE_DEBUG=1" in words
    assert "Traceback" not in words
    monkeypatch.setenv("NVLANE_DEBUG", "1")
    main._guarded([], Output())
    assert "Traceback" in capsys.readouterr().err


def test_a_failed_command_is_ready_to_paste(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise CommandFailed("qemu-img create x", "exit status 1", "no space left", remedy="make room")

    monkeypatch.setattr(main.cli, "main", failing)
    assert main._guarded([], Output()) == 1
    words = capsys.readouterr().err
    assert "$ qemu-img create x" in words
    assert "| no space left" in words
    assert "remedy: make room" in words


def test_tables_hold_cells_of_several_lines() -> None:
    assert table(["A", "B"], [["1", "x\ny"], ["22", ""]]) == "A   B\n1   x\n    y\n22"
