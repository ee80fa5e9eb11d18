"""`nvlane bench` in the lab: one drive by four lanes, cut short and gone on with; and what it refuses.

One round of one short job: what is looked at is the measuring, and the lab has no speed to measure.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from at_work import nvlane, unchanged, write_spec
from spare import spare_drive

from nvlane.apply import process
from nvlane.bench.result import Result
from nvlane.cli.service.bench_file import load
from nvlane.model.errors import SpecError

pytestmark = pytest.mark.lab

LANES = ["emulated", "userspace", "vhost-user", "passthrough"]
#: Seconds for a machine to boot where everything is emulated twice, and for one of its lanes.
PATIENCE = 300.0
OPTIONS = (
    "--timeout",
    "300",
    "--quick",
    "--rounds",
    "1",
    "--runtime",
    "0.3",
    "--jobs",
    "randrw-4k-8",
    "--writes-to",
    "serial:LABSPARE",
)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with spare_drive():
        yield write_spec(
            tmp_path_factory.mktemp("bench"), "bench", 'kind = "userspace"\ndrive = "serial:LABSPARE"', memory="512MiB"
        )


def test_a_drive_with_data_is_not_written_to(spec: Path) -> None:
    with unchanged():
        for named in ((), ("--writes-to", "serial:LABDRIVE1")):
            refused = nvlane("bench", "--quick", spec, "--output", spec.with_suffix(".none"), *named)
            assert refused.status == 3
            assert "--writes-to serial:LABSPARE" in refused.err and "holds data" in refused.err
    assert not spec.with_suffix(".none").exists()


@pytest.fixture(scope="module")
def measured(spec: Path) -> Iterator[tuple[int, Result, dict[str, Any]]]:
    """(runs of the first go, which is interrupted after its first lane; the whole result; what the second go said)."""
    place = spec.with_suffix(".json")
    with unchanged():
        argv = [sys.executable, "-m", "nvlane", "bench", str(spec), "--output", str(place), *OPTIONS]
        pid = process.spawn(argv, log=spec.with_suffix(".log"))
        try:
            _wait_for_a_sample(place, pid, spec.with_suffix(".log"))
        finally:
            os.kill(pid, signal.SIGINT if place.exists() else signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 130, spec.with_suffix(".log").read_text()
        first = load(place)
        again = nvlane("bench", spec, "--json", "--output", place, *OPTIONS).ok()
        assert f"going on with {place}" in again.err
        yield len(first.samples), load(place), again.json


def _wait_for_a_sample(place: Path, pid: int, log: Path) -> None:
    """The file is written anew after every run of a job."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if load(place).samples:
                return
        except SpecError:
            assert os.waitpid(pid, os.WNOHANG)[0] == 0, log.read_text()
        assert time.monotonic() < until, f"no run within {PATIENCE:g} s: {log.read_text()}"
        time.sleep(0.2)


def test_it_goes_on_where_it_was_cut_short(measured: tuple[int, Result, dict[str, Any]]) -> None:
    before, result, said = measured
    assert 1 <= before < 4
    assert [sample.lane for sample in result.samples] == LANES
    assert result.complete and said["complete"]


def test_every_lane_did_its_io_and_cost_something(measured: tuple[int, Result, dict[str, Any]]) -> None:
    _, result, said = measured
    for sample in result.samples:
        assert sample.ios == sum(sample.latency.values()) > 0
        assert sample.bytes == sample.ios * 4096
        assert sample.cpu.vcpus > 0 and sample.cpu.host_busy > 0
    by_lane = {sample.lane: sample.cpu for sample in result.samples}
    assert by_lane["vhost-user"].target > 0
    assert {lane: cpu.target for lane, cpu in by_lane.items() if lane != "vhost-user"} == dict.fromkeys(
        [lane for lane in LANES if lane != "vhost-user"], 0.0
    )
    assert [row["lane"] for row in said["rows"]] == LANES


def test_the_lab_draws_no_conclusion(measured: tuple[int, Result, dict[str, Any]]) -> None:
    _, result, said = measured
    assert said["orders"] == []
    assert any("lab" in caveat for caveat in result.where.caveats)
    assert result.where.storage == "QEMU NVMe Ctrl LABSPARE" and result.where.accelerator == "kvm"
    assert result.fio.startswith("fio-") and "probe guest" in result.where.guest


def test_a_complete_measurement_is_not_made_again(spec: Path, measured: tuple[int, Result, dict[str, Any]]) -> None:
    again = nvlane("bench", spec, "--json", "--output", spec.with_suffix(".json"), *OPTIONS).ok()
    assert again.json["rows"] == measured[2]["rows"]
    other = nvlane("bench", spec, "--output", spec.with_suffix(".json"), *OPTIONS, "--rounds", "2")
    assert other.status == 2 and "another measurement (rounds differ)" in other.err
    compared = nvlane("bench", "--json", "--compare", spec.with_suffix(".json"), spec.with_suffix(".json")).ok()
    assert {row["verdict"] for row in compared.json["rows"]} == {"too few rounds"}
