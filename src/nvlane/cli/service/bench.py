"""`bench`: the same storage given to one running machine by one lane after the other, and fio in its guest."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from nvlane.bench import contender, fio, jobs
from nvlane.bench.jobs import Job
from nvlane.bench.result import Result, Sample
from nvlane.bench.series import Pace, Visit, in_words, visits
from nvlane.cli.service.bench_cpu import read_times, watched
from nvlane.cli.service.bench_file import Kept
from nvlane.cli.service.bench_guest import GuestFio, device_of, kit
from nvlane.cli.service.bench_plan import Prepared, node_of
from nvlane.cli.service.down import take_down
from nvlane.cli.service.guest import reach
from nvlane.cli.service.plug import attach, detach
from nvlane.cli.service.record import MachineRecord
from nvlane.cli.service.tell import Silent, Tell
from nvlane.cli.service.up import SpecFile, bring_up
from nvlane.cli.service.world import World
from nvlane.model.errors import NotRestored
from nvlane.spec.lane import Lane
from nvlane.verify.guest import Guest

#: Seconds, guessed until they are seen: a change of the lane, and what a run takes beside its own time.
_CHANGE, _START = 5.0, 1.0
#: Seconds that the warm-up takes at most.
_WARM_UP = 2.0
#: Seconds for a guest of the user's own to shut down.
_SHUTDOWN = 60.0


def measure(world: World, prepared: Prepared, kept: Kept, tell: Tell, *, deadline: float) -> Result:
    """Measure what is still to be measured; after every run the file is whole. `deadline`: for the guest to boot."""
    if kept.result.complete:
        return kept.result
    if prepared.own_guest:
        world = dataclasses.replace(world, fio=kit(tell.phase))
    with _machine(world, prepared, tell, deadline) as (record, guest):
        program = GuestFio(guest, tell.phase)
        kept.take(kept.result.begun(fio=program.version, guest=_guest_words(guest, prepared), now=time.time()))
        run = _Run(world=world, prepared=prepared, kept=kept, tell=tell, record=record, guest=guest, fio=program)
        to_do = run.visits()
        for index, visit in enumerate(to_do):
            run.visit(visit, to_do[index + 1 :])
    kept.take(dataclasses.replace(kept.result, ended=time.time()))
    return kept.result


@contextlib.contextmanager
def _machine(world: World, prepared: Prepared, tell: Tell, deadline: float) -> Iterator[tuple[MachineRecord, Guest]]:
    """The machine without lanes, up; and down at the end, however that comes."""
    file = SpecFile(path=prepared.source, directory=prepared.directory, text=prepared.machine_text)
    tell.phase(f"starting {prepared.name}")
    came = bring_up(world, file, Silent(), keep_on_failure=False, check_guest=False, deadline=deadline)
    try:
        tell.phase(f"waiting for the guest of {prepared.name}")
        with reach(came.record, deadline=deadline) as guest:
            yield came.record, guest
    finally:
        tell.phase(f"ending {prepared.name}")
        went = take_down(world, prepared.name, Silent(), shutdown=_SHUTDOWN)
        if went.report.failed:
            raise NotRestored(
                f"{prepared.name}: something could not be put back\n{went.report.text()}",
                remedy=f"nvlane restore {prepared.name}",
            )


def _guest_words(guest: Guest, prepared: Prepared) -> str:
    hello = guest.hello()
    return f"{'nvlane probe guest, ' if prepared.own_guest else ''}Linux {hello.kernel}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One measurement at work."""

    world: World
    prepared: Prepared
    kept: Kept
    tell: Tell
    record: MachineRecord
    guest: Guest
    fio: GuestFio
    changes: list[float] = field(default_factory=list)
    runs: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.kept.result.series.milliseconds / 1000

    def visits(self) -> tuple[Visit, ...]:
        series = self.kept.result.series
        lanes, names = [lane.name for lane in series.lanes], [job.name for job in series.jobs]
        return visits(lanes, names, series.rounds, self.kept.result.done)

    def visit(self, visit: Visit, to_come: tuple[Visit, ...]) -> None:
        """Give the storage by one lane, run the jobs that are left for it, and take it back."""
        begin = time.monotonic()
        self._say(visit, "giving it to the guest", len(visit.jobs), to_come)
        lane = next(lane for lane in self.prepared.lanes if lane.name == visit.lane)
        text = contender.table(self._now(lane))
        file = SpecFile(path=f"{visit.lane}.toml", directory=self.prepared.directory, text=text)
        record, plugged = attach(self.world, self.record.name, file, Silent(), check_guest=False, deadline=0)
        device, size = device_of(self.guest, record, plugged, self.prepared.storage.namespace)
        self._fio(jobs.WARM_UP, device, size, seconds=min(self.seconds, _WARM_UP))
        spent = time.monotonic() - begin
        for index, name in enumerate(visit.jobs):
            self._say(visit, name, len(visit.jobs) - index, to_come)
            self._sample(visit, name, device, size)
        begin = time.monotonic()
        detach(self.world, self.record.name, visit.lane, Silent())
        self.changes.append(spent + time.monotonic() - begin)

    def _now(self, lane: Lane) -> Lane:
        """Facts take their time: they are read again only for a lane that needs the drive's node."""
        if not contender.wants_node(lane):
            return contender.at(lane, "")
        node, block_size = node_of(self.world, self.prepared.storage)
        return contender.at(lane, node, block_size)

    def _sample(self, visit: Visit, name: str, device: str, size: int) -> None:
        job = next(job for job in self.kept.result.series.jobs if job.name == name)
        begin = time.monotonic()
        who = watched(self.world, self.record.name)
        before = read_times(self.world.host, who)
        text = self._fio(job, device, size, seconds=self.seconds)
        spent = read_times(self.world.host, who).since(before)
        outcome = fio.read_outcome(text, name)
        sample = Sample(
            round=visit.round,
            lane=visit.lane,
            job=name,
            ios=outcome.ios,
            bytes=outcome.bytes,
            seconds=outcome.seconds,
            latency=outcome.latency,
            cpu=spent,
        )
        self.kept.take(self.kept.result.with_sample(sample))
        self.runs.append(time.monotonic() - begin)

    def _fio(self, job: Job, device: str, size: int, *, seconds: float) -> str:
        read_only = not any(job.pattern.writes for job in self.kept.result.series.jobs)
        words = jobs.fio_words(job, device, milliseconds=round(seconds * 1000), size=size, read_only=read_only)
        return self.fio.run(words, seconds=seconds)

    def _say(self, visit: Visit, what: str, jobs_left: int, to_come: tuple[Visit, ...]) -> None:
        pace = Pace(changes=tuple(self.changes), runs=tuple(self.runs))
        left = pace.left(to_come, jobs_left, change=_CHANGE, run=self.seconds + _START)
        rounds = self.kept.result.series.rounds
        self.tell.phase(f"round {visit.round + 1} of {rounds}, {visit.lane}: {what} (about {in_words(left)} left)")
