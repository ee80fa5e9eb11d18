"""How quick nvlane itself is: `nvlane --help`, and `nvlane plan` of a thousand lanes.

Each figure is the median of the wall time of whole processes, with the least and the most beside it. Planning is done
against a facts file, so that no host is read: as `nvlane plan --facts FILE SPEC…` does on any machine.

Run it with `make bench`, or `python benchmarks/startup.py`. It measures and judges nothing.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from nvlane.apply.process import run
from nvlane.facts.shape import Facts, PathFacts
from nvlane.lanes.compose import make_plan
from nvlane.model.codec import decode, encode
from nvlane.spec.reader import read_spec
from nvlane.targets.table import ENGINES

ROUNDS = 10
LANES = 1000
MACHINES = 6  # a q35 board has slots for 198 lanes
HOST = Path(__file__).parents[1] / "tests" / "cases" / "facts" / "server.json"
NVLANE = (sys.executable, "-m", "nvlane")


def main() -> None:
    print(f"goal  median   least    most   what ({ROUNDS} runs each)")
    report("0.2 s", (*NVLANE, "--help"), "nvlane --help")
    with tempfile.TemporaryDirectory(prefix="nvlane-bench-") as place:
        directory = Path(place)
        facts = host_for(directory)
        several = machines(directory, LANES, MACHINES)
        steps = sum(planned_steps(path, facts) for path in several)
        words = f"nvlane plan, {LANES} lanes on {MACHINES} machines, all planned ({steps} steps)"
        report("1 s  ", plan_command(directory, several), words)
        one = machines(directory, LANES, 1)
        assert planned_steps(one[0], facts) == 0
        report("1 s  ", plan_command(directory, one), f"nvlane plan, {LANES} lanes on one machine, refused: no room")


def report(goal: str, command: Sequence[str], words: str) -> None:
    run(command, check=False)  # the first run writes Python's caches, which later ones find
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        done = run(command, check=False)
        seconds.append(time.perf_counter() - started)
        if done.returncode not in (0, 3):
            raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr}")
    middle = statistics.median(seconds)
    print(f"{goal} {middle:6.3f} {min(seconds):7.3f} {max(seconds):7.3f}   {words}")


def plan_command(directory: Path, specs: Sequence[Path]) -> tuple[str, ...]:
    return (*NVLANE, "plan", "--facts", str(directory / "facts.json"), *map(str, specs))


def host_for(directory: Path) -> Facts:
    """The facts of a server, with room for a new image for every lane."""
    facts = decode(Facts, json.loads(HOST.read_text()))
    images = (PathFacts(path=str(directory / f"{n}.raw"), kind="absent", filesystem="ext4") for n in range(LANES))
    facts = dataclasses.replace(facts, paths=tuple(images))
    (directory / "facts.json").write_text(json.dumps(encode(facts)))
    return facts


def machines(directory: Path, lanes: int, count: int) -> list[Path]:
    """Spec files: lanes of three kinds in turn, shared out over machines."""
    texts = [f'[machine]\nname = "vm{number}-of-{count}"\n' for number in range(count)]
    for number in range(lanes):
        texts[number % count] += "\n[[lane]]\n" + lane(number)
    paths = [directory / f"{number}-of-{count}.toml" for number in range(count)]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


def lane(number: int) -> str:
    match number % 3:
        case 0:
            return f'kind = "emulated"\nnamespaces = [{{ image = "{number}.raw", size = "1GiB" }}]\n'
        case 1:
            return 'kind = "vhost-user"\nnull = "1GiB"\n'
        case _:
            return f'kind = "vhost-user"\nfile = "{number}.raw"\nsize = "1GiB"\n'


def planned_steps(path: Path, facts: Facts) -> int:
    return len(make_plan(read_spec(str(path)), facts, ENGINES).steps)


if __name__ == "__main__":
    main()
