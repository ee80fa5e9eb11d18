//! Reactors that sleep, and what wakes them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nvlane_bdev::Bdev;
use nvlane_ring::Layout;
use nvlane_ring::driver::DriverRing;
use nvlane_target::device::blk::{Blk, Shape};
use nvlane_target::reactor::{PollPolicy, QueueId, Reactors};
use nvlane_vhost_user::frontend::{notify, wait_notified};

use crate::rig::*;

fn started(bdev: &Arc<dyn Bdev>, layout: Layout, event_idx: bool) -> (Reactors, GuestQueue, QueueId) {
    let reactors = Reactors::start(&[0], PollPolicy::Adaptive).unwrap();
    let channel = reactors.open_channel(0, bdev).unwrap();
    let (queue, ring) = GuestQueue::new(layout, 64, event_idx);
    let device = Box::new(Blk::new(channel, Arc::new(Shape::new(&**bdev, false)), 64));
    let id = reactors.attach(0, queue.work(ring, device));
    (reactors, queue, id)
}

fn asleep(reactors: &Reactors) {
    let start = Instant::now();
    while !reactors.stats()[0].asleep {
        assert!(start.elapsed() < Duration::from_secs(20), "the reactor does not sleep");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// A driver that kicks only when asked to and waits for its calls: each round may lose a wake-up on either side.
#[test]
fn no_request_is_ever_left_lying() {
    for (layout, event_idx) in
        [(Layout::Split, false), (Layout::Split, true), (Layout::Packed, false), (Layout::Packed, true)]
    {
        let (_reactors, mut queue, _) = started(&malloc(2048, 512), layout, event_idx);
        queue.driver.enable_calls();
        let asked = queue.ask(IN, 0, &[], 512);
        notify(&queue.kick).unwrap();
        let header = asked.data - 16;
        for round in 0..3000_u32 {
            let start = Instant::now();
            let used = loop {
                if let Some(used) = queue.driver.reap() {
                    break used;
                }
                if queue.driver.enable_calls() {
                    let called = wait_notified(&queue.call, Duration::from_secs(20)).unwrap();
                    assert!(called, "round {round} of {layout:?}, EVENT_IDX {event_idx}: no call came");
                }
                queue.driver.disable_calls();
            };
            assert!(start.elapsed() < Duration::from_secs(20));
            assert_eq!(used.written, 513);
            // Gaps around the time at which the reactor goes to sleep: 0 to 255 µs.
            let gap = Duration::from_micros(u64::from(round.wrapping_mul(97) % 256));
            let now = Instant::now();
            while now.elapsed() < gap {
                std::hint::spin_loop();
            }
            let buffers = [
                nvlane_ring::driver::Buffer { address: header, length: 16, writable: false },
                nvlane_ring::driver::Buffer { address: asked.data, length: 512, writable: true },
                nvlane_ring::driver::Buffer { address: asked.status, length: 1, writable: true },
            ];
            queue.driver.add(&buffers).unwrap();
            if queue.driver.publish() {
                notify(&queue.kick).unwrap();
            }
        }
    }
}

#[test]
fn a_sleeping_reactor_hears_letters_kicks_and_disks() {
    let bdev = slow(5_000);
    let (reactors, mut queue, id) = started(&bdev, Layout::Split, false);
    asleep(&reactors);
    queue.driver.enable_calls();
    // A kick wakes it; then it sleeps again with the request under way, and the disk wakes it.
    let sleeps = reactors.stats()[0].sleeps;
    let asked = queue.ask(IN, 0, &[], 512);
    notify(&queue.kick).unwrap();
    // The first call is that of the attachment.
    let start = Instant::now();
    while queue.driver.reap().is_none() {
        assert!(wait_notified(&queue.call, Duration::from_secs(20)).unwrap());
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert_eq!(queue.status(&asked), OK);
    asleep(&reactors);
    assert!(reactors.stats()[0].sleeps >= sleeps + 2, "it slept while the disk was at work");
    // A letter wakes it.
    reactors.detach(id);
    let start = Instant::now();
    while reactors.take_back().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
}

/// Sixteen queues and nobody who asks for anything.
#[test]
fn an_idle_reactor_uses_no_processor() {
    let reactors = Reactors::start(&[0], PollPolicy::Adaptive).unwrap();
    let bdev = malloc(2048, 512);
    let channel = reactors.open_channel(0, &bdev).unwrap();
    let shape = Arc::new(Shape::new(&*bdev, false));
    let queues: Vec<_> = (0..16)
        .map(|_| {
            let (queue, ring) = GuestQueue::new(Layout::Split, 64, true);
            reactors.attach(0, queue.work(ring, Box::new(Blk::new(channel, shape.clone(), 64))));
            queue
        })
        .collect();
    asleep(&reactors);
    let used = || {
        let thread = reactors.stats()[0].thread;
        // proc_pid_schedstat: nanoseconds on a processor come first.
        let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    };
    let before = used();
    std::thread::sleep(Duration::from_millis(500));
    let share = (used() - before) as f64 / 500e6;
    assert!(share < 0.005, "{:.2} % of a processor", share * 100.0);
    assert_eq!(queues.len(), 16);
}

/// A queue that leaves while its disk is at work lets the reactor sleep until the disk is done.
#[test]
fn a_queue_that_drains_costs_no_processor() {
    let bdev = slow(300_000);
    let (reactors, mut queue, id) = started(&bdev, Layout::Packed, true);
    let asked = queue.ask(IN, 0, &[], 512);
    notify(&queue.kick).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    reactors.detach(id);
    std::thread::sleep(Duration::from_millis(20));
    asleep(&reactors);
    assert!(reactors.take_back().is_empty(), "it is not drained yet");
    let start = Instant::now();
    while reactors.take_back().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    assert_eq!(queue.status(&asked), OK);
}
