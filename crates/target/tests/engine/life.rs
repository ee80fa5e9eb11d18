//! Queues and disks that come and go under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nvlane_ring::driver::DriverRing;
use nvlane_ring::{Layout, Queue, VringBase};
use nvlane_target::device::blk::{Blk, Shape};
use nvlane_target::reactor::{PollPolicy, Reactors};

use crate::rig::*;

#[test]
fn a_queue_comes_back_when_its_last_request_has_ended() {
    let mut rig = Rig::new(slow(20_000), false);
    let (mut queue, id) = rig.queue(Layout::Split);
    let start = Instant::now();
    let asked: Vec<_> = (0..10).map(|n| queue.ask(IN, n, &[], 512)).collect();
    rig.turns(2);
    rig.reactors.detach(id);
    // Too late: it is not taken any more.
    rig.turns(2);
    let late = queue.ask(IN, 0, &[], 512);
    let detached = rig.detached();
    assert!(start.elapsed() >= Duration::from_millis(20));
    assert_eq!((detached.queue, detached.base), (id, VringBase(10)));
    assert_eq!(std::iter::from_fn(|| queue.driver.reap()).count(), 10);
    assert!(asked.iter().all(|request| queue.status(request) == OK));
    assert_eq!(queue.status(&late), UNTOUCHED);
}

#[test]
fn a_disk_that_is_removed_under_load_fails_what_comes_and_ends_what_is_there() {
    let mut rig = Rig::new(slow(10_000), false);
    let (mut queue, _) = rig.queue(Layout::Packed);
    let before = queue.ask(IN, 0, &[], 512);
    rig.turns(2);
    let weak = Arc::downgrade(&rig.bdev);
    rig.shape.remove();
    rig.reactors.close_channel(rig.channel);
    rig.bdev = malloc(1, 512);
    let after = queue.ask(IN, 0, &[], 512);
    let first = rig.until(|| queue.driver.reap());
    assert_eq!((first.id, queue.status(&after)), (after.id, IOERR));
    assert!(weak.upgrade().is_some(), "the channel is still needed");
    let second = rig.until(|| queue.driver.reap());
    assert_eq!((second.id, queue.status(&before)), (before.id, OK));
    let reactors = rig.reactors.clone();
    rig.until(|| {
        reactors.take_back();
        weak.upgrade().is_none().then_some(())
    });
    assert_eq!(rig.ask(&mut queue, FLUSH, 0, &[], 0).0, IOERR);
    let (mut other, _) = rig.queue(Layout::Split);
    assert_eq!(rig.ask(&mut other, IN, 0, &[], 512).0, IOERR);
}

#[test]
fn a_disk_that_shrinks_is_checked_against_at_once() {
    let mut rig = Rig::new(malloc(2048, 512), false);
    let (mut queue, _) = rig.queue(Layout::Split);
    assert_eq!(rig.ask(&mut queue, IN, 2000, &[], 512).0, OK);
    rig.bdev.resize(1000).unwrap();
    rig.shape.resize(rig.bdev.bytes());
    assert_eq!(rig.ask(&mut queue, IN, 2000, &[], 512).0, IOERR);
    assert_eq!(rig.ask(&mut queue, IN, 999, &[], 512).0, OK);
}

/// A thousand times on two live reactors, with another queue under load on each.
#[test]
fn a_thousand_queues_come_and_go() {
    let reactors = Reactors::start(&[0, 1], PollPolicy::Adaptive).unwrap();
    let bdev = malloc(2048, 512);
    let shape = Arc::new(Shape::new(&*bdev, false));
    let channels = [0, 1].map(|reactor| reactors.open_channel(reactor, &bdev).unwrap());
    let attach = |reactor: usize, queue: &GuestQueue, ring: Queue| {
        let device = Box::new(Blk::new(channels[reactor], shape.clone(), 256));
        reactors.attach(reactor, queue.work(ring, device))
    };
    let stop = Arc::new(AtomicBool::new(false));
    let background = [0, 1].map(|reactor| {
        let (mut queue, ring) = GuestQueue::new(Layout::Split, 256, false);
        attach(reactor, &queue, ring);
        let stop = stop.clone();
        std::thread::spawn(move || {
            let asked = queue.ask(IN, 0, &[], 512);
            let mut done = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                while queue.driver.reap().is_none() {
                    if stop.load(Ordering::Relaxed) {
                        return done;
                    }
                    std::thread::yield_now();
                }
                assert_eq!(queue.status(&asked), OK);
                done += 1;
                let buffers = [
                    nvlane_ring::driver::Buffer {
                        address: asked.data + (1 << 20),
                        length: 16,
                        writable: false,
                    },
                    nvlane_ring::driver::Buffer { address: asked.data, length: 512, writable: true },
                    nvlane_ring::driver::Buffer { address: asked.status, length: 1, writable: true },
                ];
                queue.driver.add(&buffers).unwrap();
                if queue.driver.publish() {
                    nvlane_vhost_user::frontend::notify(&queue.kick).unwrap();
                }
            }
            done
        })
    });
    for n in 0..1000_usize {
        let layout = if n % 3 == 0 { Layout::Packed } else { Layout::Split };
        let mut guest = nvlane_ring::driver::Guest::new(1 << 20).unwrap();
        let config = guest.queue(layout, 16);
        let driver = guest.driver(&config).unwrap();
        let notifier = || nvlane_vhost_user::frontend::notifier().unwrap();
        let mut queue = GuestQueue { guest, driver, kick: notifier(), call: notifier(), err: notifier() };
        let asked = (n % 2 == 0).then(|| queue.ask(IN, 0, &[], 512));
        let id = attach(n % 2, &queue, Queue::new(config).unwrap());
        reactors.detach(id);
        let start = Instant::now();
        while !reactors.take_back().iter().any(|detached| detached.queue == id) {
            assert!(start.elapsed() < Duration::from_secs(20), "queue {n} did not come back");
            std::thread::yield_now();
        }
        if let Some(asked) = asked {
            // Taken or not: never half.
            let status = queue.status(&asked);
            assert_eq!(queue.driver.reap().is_some(), status == OK, "status {status}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for thread in background {
        assert!(thread.join().unwrap() > 0);
    }
    assert_eq!(reactors.load(0) + reactors.load(1), 2);
}
