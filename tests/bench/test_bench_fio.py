"""fio's own files, of two versions, read; and what is no such file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvlane.bench.fio import merged, read_outcome
from nvlane.bench.jobs import Job, Pattern, chosen, fio_words, full_set, quick_set
from nvlane.bench.latency import SHOWN, distribution, percentile
from nvlane.model.errors import SpecError, WireError

FILES = sorted((Path(__file__).parent / "fio").glob("*.json"))


def test_there_are_files_of_two_versions() -> None:
    assert len({file.stem.rsplit("-", 1)[1] for file in FILES}) == 2


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_counts_and_percentiles_agree_with_those_of_fio(file: Path) -> None:
    text = file.read_text()
    outcome = read_outcome(text, "a job")
    job = json.loads(text)["jobs"][0]
    sides = [job[name] for name in ("read", "write") if job[name]["total_ios"]]
    assert outcome.ios == sum(side["total_ios"] for side in sides) == sum(outcome.latency.values())
    assert outcome.bytes == sum(side["io_bytes"] for side in sides)
    assert outcome.iops == pytest.approx(sum(side["iops"] for side in sides), rel=0.02)
    for side in sides:
        bins = {int(time): count for time, count in side["clat_ns"]["bins"].items()}
        for part in SHOWN:
            theirs = side["clat_ns"]["percentile"][f"{part:.6f}"]
            assert percentile(bins, part) == pytest.approx(theirs, rel=0.035)  # a bin more or less


def test_warnings_before_the_answer_do_no_harm() -> None:
    text = FILES[0].read_text()
    assert read_outcome(f"fio: a warning\n{text}", "a job") == read_outcome(text, "a job")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"error": 5}, "I/O error"),
        ({"read": {"total_ios": 0, "io_bytes": 0, "runtime": 0, "clat_ns": {}}, "write": None}, "not understood"),
        ({"read": {}}, "not understood"),
    ],
)
def test_what_is_no_outcome_is_an_error(change: dict[str, object], words: str) -> None:
    value = json.loads(FILES[0].read_text())
    value["jobs"][0].update(change)
    with pytest.raises(WireError, match=words):
        read_outcome(json.dumps(value), "a job")


def test_no_io_and_no_json() -> None:
    value = json.loads(FILES[0].read_text())
    nothing = {"total_ios": 0, "io_bytes": 0, "runtime": 0, "clat_ns": {"min": 0}}
    value["jobs"][0].update(read=nothing, write=nothing)
    with pytest.raises(WireError, match="no I/O at all"):
        read_outcome(json.dumps(value), "a job")
    with pytest.raises(WireError, match="not understood"):
        read_outcome("fio: no such job", "a job")


def test_percentile_by_hand() -> None:
    histogram = {100: 50, 200: 49, 900: 1}
    assert [percentile(histogram, part) for part in (50, 50.1, 99, 99.5)] == [100, 200, 200, 900]
    assert percentile({}, 50) == 0
    assert distribution(histogram) == ((100.0, 0.5), (200.0, 0.99), (900.0, 1.0))
    assert merged([{1: 2, 5: 1}, {0: 1, 5: 2}]) == {0: 1, 1: 2, 5: 3}


def test_names_of_jobs_are_unique_and_choose() -> None:
    names = [job.name for job in full_set()]
    assert len(set(names)) == len(names) == 14
    assert {job.name for job in quick_set()} <= set(names)
    assert [job.name for job in chosen(["randread-4k-8", "read"])] == ["randread-4k-8", "read-128k-8"]
    assert len(chosen(["randrw"])) == 4
    assert chosen(["randread-4k-1"], workers=4)[0].name == "randread-4k-1x4"
    with pytest.raises(SpecError, match="did you mean 'randread-4k-8'"):
        chosen(["randread-4k-9"])


def test_only_writing_jobs_may_write() -> None:
    reads = Job(pattern=Pattern.RANDOM_READ, block_size=4096, depth=1)
    writes = Job(pattern=Pattern.RANDOM_MIXED, block_size=4096, depth=1)
    words = {job: fio_words(job, "/dev/x", milliseconds=500, size=10_000, read_only=False) for job in (reads, writes)}
    assert "--readonly" in words[reads] and "--readonly" not in words[writes]
    assert "--readonly" in fio_words(writes, "/dev/x", milliseconds=500, size=10_000, read_only=True)
    assert "--size=8192" in words[writes] and "--runtime=500ms" in words[writes]
