"""Results made by hand: each lane has a speed, and each round is a little faster than the one before."""

from __future__ import annotations

from collections.abc import Mapping

from nvlane.bench.cpu import Times
from nvlane.bench.jobs import Job, Pattern
from nvlane.bench.result import FORMAT, Contender, Result, Sample, Series, Where

READS = tuple(Job(pattern=Pattern.RANDOM_READ, block_size=4096, depth=depth) for depth in (1, 8, 32))
WRITES = (Job(pattern=Pattern.WRITE, block_size=128 << 10, depth=8),)
SPEEDS = {"emulated": 10_000, "userspace": 20_000, "vhost-user": 40_000, "passthrough": 50_000}


def result(
    speeds: Mapping[str, int] = SPEEDS,
    *,
    rounds: int = 5,
    jobs: tuple[Job, ...] = (*READS, *WRITES),
    caveats: tuple[str, ...] = (),
    hostname: str = "host",
) -> Result:
    lanes = tuple(Contender(name=name, kind=name, table=f'[[lane]]\nkind = "{name}"\n') for name in speeds)
    series = Series(
        machine='[machine]\nname = "m"\n', storage="serial:X1", lanes=lanes, jobs=jobs, rounds=rounds, milliseconds=1000
    )
    where = Where(
        hostname=hostname, kernel="6.12.1", processor="A processor", cpus=8, qemu="10.0.2", accelerator="kvm",
        storage="A drive <of somebody> X1", guest="Linux 6.12.1", caveats=caveats,
    )  # fmt: skip
    samples = tuple(
        _sample(number, name, job, round(speed * (1 + number / 100)))
        for number in range(rounds)
        for name, speed in speeds.items()
        for job in jobs
    )
    return Result(
        format=FORMAT,
        nvlane="0.1.0",
        series=series,
        where=where,
        fio="fio-3.39",
        started=1.0,
        ended=2.0,
        samples=samples,
    )


def _sample(number: int, lane: str, job: Job, iops: int) -> Sample:
    usual = 1_000_000_000 * job.depth // iops
    ios = iops * job.depth
    return Sample(
        round=number,
        lane=lane,
        job=job.name,
        ios=ios,
        bytes=ios * job.block_size,
        seconds=float(job.depth),
        latency={usual: ios - ios // 50, usual * 3: ios // 50},
        cpu=Times(
            vcpus=ios * 5e-6, qemu=ios * 2e-6, target=ios * 1e-6 if lane == "vhost-user" else 0.0, host_busy=ios * 9e-6
        ),
    )
