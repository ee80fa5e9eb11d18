"""The order of a measurement, what is left of it, and processor time."""

from __future__ import annotations

from nvlane.bench.cpu import STORAGE_THREADS, Thread, Times, busy_ticks, read_stat, times
from nvlane.bench.series import Pace, Visit, in_words, places, visits


def test_lanes_take_turns_round_after_round() -> None:
    seen = visits(["a", "b", "c"], ["x", "y"], 2, frozenset())
    assert [(visit.round, visit.lane) for visit in seen] == [(0, "a"), (0, "b"), (0, "c"), (1, "a"), (1, "b"), (1, "c")]
    assert all(visit.jobs == ("x", "y") for visit in seen)


def test_what_is_done_is_not_done_again() -> None:
    every = list(places(["a", "b"], ["x", "y"], 2))
    done = frozenset(every[:3])  # a whole, of b the first job
    left = visits(["a", "b"], ["x", "y"], 2, done)
    assert left[0] == Visit(round=0, lane="b", jobs=("y",))
    assert [(visit.round, visit.lane) for visit in left[1:]] == [(1, "a"), (1, "b")]
    assert visits(["a", "b"], ["x", "y"], 2, frozenset(every)) == ()


def test_time_left_is_learnt() -> None:
    to_come = visits(["a", "b"], ["x", "y"], 1, frozenset())
    assert Pace().left(to_come, 1, change=10, run=2) == 2 * 10 + 5 * 2
    assert Pace(changes=(4, 6), runs=(1, 3)).left(to_come, 1, change=10, run=9) == 2 * 5 + 5 * 2
    assert [in_words(seconds) for seconds in (7600, 250, 35.4)] == ["2 h 06 min", "4 min 10 s", "35 s"]
    assert [in_words(seconds) for seconds in (0.5, 2.0)] == ["0.5 s", "2 s"]


STAT = "4711 ({name}) S 2 0 0 0 -1 2129984 0 0 0 0 {user} {system} 0 0 20 0 1 0 27 0 0 18446744073709551615"


def test_a_name_with_brackets_and_blanks_is_read() -> None:
    assert read_stat(STAT.format(name="CPU 0/KVM", user=5, system=7)) == Thread(name="CPU 0/KVM", ticks=12)
    assert read_stat(STAT.format(name="a) S (b", user=1, system=0)) == Thread(name="a) S (b", ticks=1)


def test_storage_threads_of_the_kernel() -> None:
    theirs = ("vhost-4711", "irq/30-nvme0q1", "nvme-wq", "kworker/0:1H-kblockd", "iou-sqp-99", "kworker/R-nvme-")
    assert [bool(STORAGE_THREADS.fullmatch(name)) for name in theirs] == [True] * 6
    others = ("kworker/0:1-events", "ksoftirqd/0", "vhost", "jbd2/vda1-8")
    assert not any(STORAGE_THREADS.fullmatch(name) for name in others)


def test_processor_time_is_shared_out() -> None:
    reading = times(
        qemu=Thread(name="qemu-system-x86", ticks=500),
        qemu_threads=[Thread(name="CPU 0/KVM", ticks=300), Thread(name="IO iothread", ticks=150)],
        targets=[Thread(name="nvlane-target", ticks=40)],
        kernel_threads={7: Thread(name="vhost-1", ticks=10)},
        host="cpu  100 0 200 5000 30 4 6 0 300 0",
        ticks_a_second=100,
    )
    assert reading == Times(vcpus=3.0, qemu=2.0, target=0.4, kernel=0.1, host_busy=3.1)
    assert reading.overhead == 2.5
    assert busy_ticks("cpu  1 2 3 100 100 4 5 6 0 0") == 21
    assert Times(qemu=1.0).since(Times(qemu=1.5)) == Times()
