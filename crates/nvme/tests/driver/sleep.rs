//! A reactor sleeps while requests are in flight, and is woken by the queue's interrupt.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nvlane_nvme::emulated::EmulatedOptions;
use nvlane_nvme::{Outcome, Qpair, Submission};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{Bench, Memory, finish, write};

fn woken(queue: &Qpair, limit: Duration) -> bool {
    // SAFETY: the descriptor is the queue pair's, which lives longer than this borrow.
    let fd = unsafe { BorrowedFd::borrow_raw(queue.wait_descriptor()) };
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&timeout)).unwrap() == 1
}

#[test]
fn an_interrupt_ends_the_sleep() {
    let options = crate::Options { io_timeout: Duration::from_secs(30), ..crate::quick() };
    let bench = Bench::with(EmulatedOptions::default(), options);
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let segment = [memory.part(0, 4096)];
    queue.poll(|_, _| ());
    assert!(queue.arm(), "nothing is in flight");
    bench.device.inject(|faults| faults.hold = true);
    for round in 0..3 {
        assert_eq!(queue.submit(&write(0, 8, &segment, round)), Submission::Pending);
        queue.kick();
        assert!(queue.arm());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                bench.device.run();
            });
            while !woken(&queue, Duration::from_secs(10))
                || queue.poll(|_, outcome| assert_eq!(outcome, Outcome::Ok)) == 0
            {
                // The clock of time-outs wakes it too.
                assert!(queue.in_flight() == 1);
                queue.arm();
            }
        });
        assert_eq!(queue.in_flight(), 0);
    }
    // What has come already is not slept over.
    assert_eq!(queue.submit(&write(0, 8, &segment, 9)), Submission::Pending);
    queue.kick();
    bench.device.run();
    assert!(!queue.arm());
    assert_eq!(finish(&mut queue, 1), [(9, Outcome::Ok)]);
    bench.is_content();
}

#[test]
fn a_sleeper_over_a_late_request_is_woken_by_the_clock() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let segment = [memory.part(0, 4096)];
    queue.poll(|_, _| ());
    bench.device.inject(|faults| faults.swallow = 1);
    assert_eq!(queue.submit(&write(0, 8, &segment, 1)), Submission::Pending);
    queue.kick();
    let mut ended = 0;
    while ended == 0 {
        if queue.arm() {
            assert!(woken(&queue, Duration::from_secs(10)), "asleep for ever");
        }
        ended = queue.poll(|_, outcome| assert_eq!(outcome, Outcome::Ok));
    }
    assert_eq!(bench.device.counters().aborts, 1);
}

#[test]
fn without_a_vector_there_is_no_sleep_over_requests() {
    let bench = Bench::new(EmulatedOptions { vectors: 1, ..EmulatedOptions::default() });
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let segment = [memory.part(0, 4096)];
    queue.poll(|_, _| ());
    bench.device.inject(|faults| faults.hold = true);
    assert_eq!(queue.submit(&write(0, 8, &segment, 1)), Submission::Pending);
    queue.kick();
    assert!(!queue.arm());
    bench.device.run();
    assert_eq!(finish(&mut queue, 1), [(1, Outcome::Ok)]);
}

#[test]
fn a_request_after_a_long_rest_is_not_late() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(1 << 20);
    // Longer than a time-out, in which nobody polls.
    std::thread::sleep(Duration::from_millis(100));
    bench.device.inject(|faults| faults.hold = true);
    for segment in [[memory.part(0, 4096)], [memory.part(2, 4096)]] {
        assert_eq!(queue.submit(&write(0, 8, &segment, 1)), Submission::Pending);
    }
    queue.kick();
    queue.poll(|_, _| ());
    bench.device.run();
    finish(&mut queue, 2);
    assert_eq!(bench.device.counters().aborts, 0);
}
