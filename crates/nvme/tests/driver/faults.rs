//! A device that never becomes ready, times out, vanishes, or returns garbage.

use std::time::Duration;

use nvlane_nvme::emulated::{Emulated, EmulatedOptions};
use nvlane_nvme::spec::Status;
use nvlane_nvme::{Event, Options, Outcome, State, Submission};

use crate::{Bench, Memory, attach, finish, quick, read, run, write};

fn patient() -> Options {
    Options { resets: 100, ..quick() }
}

#[test]
fn a_controller_that_never_gets_ready_is_an_error() {
    let device = Emulated::new(EmulatedOptions::default()).unwrap();
    device.inject(|faults| faults.never_ready = true);
    let error = attach(&device, quick()).err().unwrap();
    assert!(error.message.contains("CSTS.RDY did not become 1 within 100ms"), "{error}");
    device.inject(|faults| (faults.never_ready, faults.admin_silent) = (false, true));
    let error =
        attach(&device, Options { admin_timeout: Duration::from_millis(20), ..quick() }).err().unwrap();
    assert!(error.message.contains("Identify Controller: no answer within 20ms"), "{error}");
    device.inject(|faults| faults.vanished = true);
    assert!(attach(&device, quick()).err().unwrap().is_gone());
}

#[test]
fn a_late_command_is_aborted_and_sent_again() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let bytes = memory.fill(1);
    bench.device.inject(|faults| faults.swallow = 1);
    assert_eq!(run(&mut queue, &write(0, 8, &[memory.part(0, 4096)], 1)), Outcome::Ok);
    assert_eq!((bench.device.counters().aborts, bench.device.counters().enables), (1, 1));
    let mut kept = vec![0; 4096];
    bench.device.peek(1, 0, &mut kept);
    assert_eq!(kept, bytes);
    bench.is_content();
}

#[test]
fn when_aborts_are_useless_the_controller_is_reset_and_requests_are_sent_again() {
    for stays_ready in [false, true] {
        let bench = Bench::with(EmulatedOptions::default(), patient());
        let mut queues = [bench.controller.open(1).unwrap(), bench.controller.open(2).unwrap()];
        let memory = Memory::new(64 << 10);
        let bytes = memory.fill(1);
        bench.device.inject(|faults| {
            (faults.swallow, faults.abort_useless, faults.stays_ready) = (2, true, stays_ready);
        });
        // One that spans several commands, and through bounce buffers, on one of the queues.
        let parts = [[memory.part(0, 4096)], [memory.part(4098, 8192)]];
        for (queue, part) in queues.iter_mut().zip(&parts) {
            queue.poll(|_, _| ());
            let blocks = part[0].len() as u64 / u64::from(queue.namespace().block_size());
            assert_eq!(queue.submit(&write(0, blocks, part, 5)), Submission::Pending);
            queue.kick();
        }
        for queue in &mut queues {
            assert_eq!(finish(queue, 1), [(5, Outcome::Ok)]);
        }
        bench.event(|event| matches!(event, Event::Reset { .. }));
        assert_eq!(bench.device.counters().function_resets, u64::from(stays_ready));
        let mut kept = vec![0; 8192];
        bench.device.peek(2, 0, &mut kept);
        assert_eq!(kept, bytes[4098..4098 + 8192]);
        bench.is_content();
    }
}

#[test]
fn a_request_is_repeated_only_so_often() {
    let bench = Bench::with(EmulatedOptions::default(), Options { retries: 0, ..patient() });
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    bench.device.inject(|faults| (faults.swallow, faults.abort_useless) = (1, true));
    assert_eq!(run(&mut queue, &write(0, 8, &[memory.part(0, 4096)], 1)), Outcome::Aborted);
    assert_eq!(run(&mut queue, &write(0, 8, &[memory.part(0, 4096)], 2)), Outcome::Ok);
    bench.is_content();
}

#[test]
fn a_controller_that_helps_nothing_is_given_up() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let segment = [memory.part(0, 4096)];
    assert_eq!(run(&mut queue, &write(0, 8, &segment, 1)), Outcome::Ok);
    bench.device.inject(|faults| {
        (faults.swallow, faults.abort_useless, faults.stays_ready, faults.reset_fails) =
            (9, true, true, true);
    });
    assert_eq!(run(&mut queue, &write(0, 8, &segment, 2)), Outcome::Aborted);
    let event = bench.event(|event| matches!(event, Event::Failed(_)));
    assert!(format!("{event:?}").contains("neither CC.EN nor a function level reset"), "{event:?}");
    assert_eq!(bench.controller.state(), State::Failed);
    assert_eq!(queue.submit(&write(0, 8, &segment, 3)), Submission::Done(Outcome::Aborted));
    assert!(bench.controller.reset(Duration::from_secs(1)).unwrap_err().message.contains("has failed"));
}

#[test]
fn resets_without_end_are_ended() {
    let bench =
        Bench::with(EmulatedOptions::default(), Options { io_timeout: Duration::from_secs(30), ..quick() });
    for _ in 0..3 {
        bench.controller.reset(Duration::from_secs(5)).unwrap();
    }
    let error = bench.controller.reset(Duration::from_secs(5)).unwrap_err();
    assert!(error.message.contains("3 times in a row"), "{error}");
}

#[test]
fn a_controller_that_reports_a_fatal_status_is_reset() {
    let bench = Bench::new(EmulatedOptions::default());
    bench.device.inject(|faults| faults.fatal = true);
    let Event::Reset { reason } = bench.event(|event| matches!(event, Event::Reset { .. })) else {
        unreachable!()
    };
    assert!(reason.contains("CSTS.CFS"), "{reason}");
}

#[test]
fn garbage_in_a_completion_queue_ends_in_a_reset() {
    // A wrong queue, an entry that is not there, a slot that is not in flight, one that does not exist, an old
    // generation.
    for garble in [(1 << 16, 0), (0xffff, 0), (0, 1), (0, 0x3f), (0, 0x8000)] {
        let bench = Bench::with(EmulatedOptions::default(), patient());
        let mut queue = bench.controller.open(1).unwrap();
        let memory = Memory::new(4096);
        bench.device.inject(|faults| faults.garble = Some(garble));
        assert_eq!(run(&mut queue, &write(0, 8, &[memory.part(0, 4096)], 1)), Outcome::Ok);
        let Event::Reset { reason } = bench.event(|event| matches!(event, Event::Reset { .. })) else {
            unreachable!()
        };
        assert!(reason.contains("a completion"), "{garble:x?}: {reason}");
        bench.is_content();
    }
}

#[test]
fn a_drive_that_vanishes_fails_everything() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(1 << 20);
    let segment = [memory.part(0, 4096)];
    assert_eq!(run(&mut queue, &write(0, 8, &segment, 1)), Outcome::Ok);
    bench.device.inject(|faults| faults.vanished = true);
    assert_eq!(queue.submit(&write(0, 8, &segment, 2)), Submission::Pending);
    // One of many commands, most of which were never sent.
    let long = [memory.part(2, 1000 << 10)];
    assert_eq!(queue.submit(&write(0, 2000, &long, 3)), Submission::Pending);
    queue.kick();
    let mut done = finish(&mut queue, 2);
    done.sort_unstable_by_key(|end| end.0);
    assert_eq!(done, [(2, Outcome::Gone), (3, Outcome::Gone)]);
    bench.event(|event| *event == Event::Gone);
    assert_eq!(queue.submit(&write(0, 8, &segment, 4)), Submission::Done(Outcome::Gone));
}

#[test]
fn errors_of_the_medium_are_told_and_passing_ones_tried_again() {
    let bench = Bench::new(EmulatedOptions::default());
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(4096);
    let segment = [memory.part(0, 4096)];
    let do_not_retry = |status: Status| Status(status.0 | 1 << 14);
    bench.device.inject(|faults| faults.statuses = vec![do_not_retry(Status::UNRECOVERED_READ)]);
    assert_eq!(run(&mut queue, &read(0, 8, &segment, 1)), Outcome::Failed(Status::UNRECOVERED_READ));
    bench.device.inject(|faults| faults.statuses = vec![Status::INTERNAL_ERROR]);
    assert_eq!(run(&mut queue, &read(0, 8, &segment, 2)), Outcome::Ok);
    bench.device.inject(|faults| faults.statuses = vec![Status::INTERNAL_ERROR; 2]);
    assert_eq!(run(&mut queue, &read(0, 8, &segment, 3)), Outcome::Failed(Status::INTERNAL_ERROR));
    assert_eq!(run(&mut queue, &read(1 << 30, 8, &segment, 4)), Outcome::Failed(Status::LBA_OUT_OF_RANGE));
}

#[test]
fn resets_under_load_lose_nothing() {
    let bench = Bench::with(EmulatedOptions::default(), Options { retries: 100, ..patient() });
    let mut queue = bench.controller.open(1).unwrap();
    let memory = Memory::new(256 << 10);
    let bytes = memory.fill(5);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (controller, device) = (&bench.controller, &bench.device);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                controller.reset(Duration::from_secs(5)).unwrap();
                std::thread::sleep(Duration::from_millis(3));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let mut round = 0u64;
        while round < 100 || !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let at = (round % 8) as usize * 20_000 + round as usize % 2 * 6;
            let segment = [memory.part(at, 40 * 512)];
            assert_eq!(run(&mut queue, &write(round % 50 * 100, 40, &segment, round)), Outcome::Ok);
            let mut kept = vec![0; 40 * 512];
            device.peek(1, (round % 50 * 100) as usize * 512, &mut kept);
            assert!(kept == bytes[at..at + 40 * 512], "round {round}");
            round += 1;
        }
    });
    bench.is_content();
}
