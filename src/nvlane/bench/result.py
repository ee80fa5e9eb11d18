"""What a measurement leaves: one JSON file with the machine, the jobs, every sample, and the host's facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nvlane.bench.cpu import Times
from nvlane.bench.jobs import Job
from nvlane.bench.series import Place, places
from nvlane.model.codec import decode, encode
from nvlane.model.errors import SpecError

#: Raised when an older nvlane could misread the file.
FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of one job on one lane in one round (0 is the first). `latency`: nanoseconds to I/Os; `cpu`: what the
    host spent during the run, in seconds."""

    round: int
    lane: str
    job: str
    ios: int
    bytes: int
    seconds: float
    latency: Mapping[int, int]
    cpu: Times

    @property
    def place(self) -> Place:
        return (self.round, self.lane, self.job)

    @property
    def iops(self) -> float:
        return self.ios / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A lane that was measured: its name, its kind, and its table of the spec (TOML)."""

    name: str
    kind: str
    table: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The machine that was measured on, for people. `caveats` say why no conclusion about speed may be drawn."""

    hostname: str
    kernel: str
    processor: str
    cpus: int
    qemu: str
    accelerator: str
    storage: str
    guest: str
    caveats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What was asked for. A file is gone on with only where this is the same."""

    machine: str
    storage: str
    lanes: tuple[Contender, ...]
    jobs: tuple[Job, ...]
    rounds: int
    milliseconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A measurement, whole or not yet. `started` and `ended` are seconds since the epoch; `facts` are the host's, as
    `nvlane doctor --facts` writes them."""

    format: int
    nvlane: str
    series: Series
    where: Where
    fio: str = ""
    started: float = 0.0
    ended: float = 0.0
    samples: tuple[Sample, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> frozenset[Place]:
        return frozenset(sample.place for sample in self.samples)

    @property
    def complete(self) -> bool:
        series = self.series
        lanes, jobs = [lane.name for lane in series.lanes], [job.name for job in series.jobs]
        return all(place in self.done for place in places(lanes, jobs, series.rounds))

    def with_sample(self, sample: Sample) -> Result:
        return dataclasses.replace(self, samples=(*self.samples, sample))

    def begun(self, *, fio: str, guest: str, now: float) -> Result:
        """With what is known only when the guest is up."""
        where = dataclasses.replace(self.where, guest=guest)
        return dataclasses.replace(self, fio=fio, where=where, started=self.started or now)

    def of(self, lane: str, job: str) -> tuple[Sample, ...]:
        """The samples of a lane and a job, in the order of rounds."""
        found = [sample for sample in self.samples if (sample.lane, sample.job) == (lane, job)]
        return tuple(sorted(found, key=lambda sample: sample.round))


def to_json(result: Result) -> Any:
    return encode(result)


def from_json(value: Any, source: str) -> Result:
    """Raises SpecError for what is no result, or one of another format."""
    remedy = "name a file that nvlane bench wrote"
    if not isinstance(value, dict) or "format" not in value or "series" not in value:
        raise SpecError("holds no measurement", source=source, remedy=remedy)
    if value["format"] != FORMAT:
        raise SpecError(f"has format {value['format']}, and this nvlane reads {FORMAT}", source=source, remedy=remedy)
    try:
        return decode(Result, value)
    except ValueError as error:
        raise SpecError(f"is damaged: {error}", source=source, remedy=remedy) from error
