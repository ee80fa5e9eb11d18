//! No wake-up is lost: the code that ships, under the model checker, in every interleaving and every order of memory
//! that C11 allows. `make loom`, or `RUSTFLAGS='--cfg loom' cargo test -p nvlane-ring --lib --release loom`.
//!
//! A lost wake-up is a deadlock here, and loom reports it.

use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use crate::driver::{Buffer, DriverRing, PackedDriver, SplitDriver};
use crate::packed::{self, Packed, Position};
use crate::split::{self, Split};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64};
use crate::{Ring, Segments};

/// An eventfd.
#[derive(Default)]
struct Event {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Event {
    fn signal(&self) {
        *self.set.lock().unwrap() = true;
        self.changed.notify_one();
    }

    fn wait(&self) {
        let mut set = self.set.lock().unwrap();
        while !*set {
            set = self.changed.wait(set).unwrap();
        }
        *set = false;
    }
}

const SIZE: u16 = 2;
/// An empty buffer: it needs no guest memory.
const REQUEST: [Buffer; 1] = [Buffer { address: 0, length: 0, writable: false }];

/// The device: takes `requests`, completes each, sleeps when there is nothing to do.
fn device(mut ring: impl Ring, requests: usize, kick: &Event, call: &Event) {
    let mut segments = Segments::new();
    let mut done = 0;
    ring.suppress();
    loop {
        while let Some(chain) = ring.pop(&mut segments).unwrap() {
            ring.complete(chain, 0);
            ring.show();
            done += 1;
        }
        // Once with something to show, once without: the call is decided in the one or in the other.
        for _ in 0..2 {
            if ring.publish() {
                call.signal();
            }
        }
        if ring.arm() {
            if done == requests {
                return; // and it never looks again
            }
            kick.wait();
        }
        ring.suppress();
    }
}

/// The driver: adds requests one by one, waits for all.
fn driver(mut ring: impl DriverRing, requests: usize, kick: &Event, call: &Event) {
    ring.disable_calls();
    for _ in 0..requests {
        ring.add(&REQUEST).unwrap();
        if ring.publish() {
            kick.signal();
        }
    }
    let mut done = 0;
    while done < requests {
        if ring.reap().is_some() {
            done += 1;
        } else if ring.enable_calls() {
            call.wait();
        }
    }
}

fn check(
    requests: usize,
    sides: impl Fn() -> (Box<dyn FnOnce(&Event, &Event) + Send>, Box<dyn FnOnce(&Event, &Event)>)
    + Sync
    + Send
    + 'static,
) {
    assert!(requests <= usize::from(SIZE));
    let mut model = loom::model::Builder::new();
    // More switches than that find nothing more in code of this kind and take minutes.
    model.preemption_bound = model.preemption_bound.or(Some(3));
    model.check(move || {
        let (kick, call) = (Arc::new(Event::default()), Arc::new(Event::default()));
        let (device, driver) = sides();
        let other = (kick.clone(), call.clone());
        let device = thread::spawn(move || device(&other.0, &other.1));
        driver(&kick, &call);
        device.join().unwrap();
    });
}

/// Ring memory made of loom's atomics; leaked by each run of the model, which is small.
fn leak<T>(count: u16, make: impl Fn() -> T) -> *const T {
    Box::leak((0..count).map(|_| make()).collect::<Box<[T]>>()).as_ptr()
}

fn split(event_idx: bool, requests: usize) {
    check(requests, move || {
        let word = || leak(1, || AtomicU16::new(0));
        let areas = split::Areas {
            descriptors: leak(2 * SIZE, || AtomicU64::new(0)),
            avail_flags: word(),
            avail_idx: word(),
            avail_ring: leak(SIZE, || AtomicU16::new(0)),
            used_event: word(),
            used_flags: word(),
            used_idx: word(),
            used_ring: leak(2 * SIZE, || AtomicU32::new(0)),
            avail_event: word(),
            size: SIZE,
        };
        let memory = std::sync::Arc::default();
        let mut ring = Split::over(areas, std::sync::Arc::clone(&memory), 0, 0);
        if event_idx {
            ring = ring.with_event_idx();
        }
        let guest = SplitDriver::over(areas, memory, event_idx);
        (
            Box::new(move |kick, call| device(ring, requests, kick, call)),
            Box::new(move |kick, call| driver(guest, requests, kick, call)),
        )
    });
}

fn packed(event_idx: bool, requests: usize) {
    check(requests, move || {
        let areas = packed::Areas {
            descriptors: leak(2 * SIZE, || AtomicU64::new(0)),
            driver_event: leak(1, || AtomicU32::new(0)),
            device_event: leak(1, || AtomicU32::new(0)),
            size: SIZE,
        };
        let start = Position { index: 0, wrap: true };
        let memory = std::sync::Arc::default();
        let mut ring = Packed::over(areas, std::sync::Arc::clone(&memory), start, start);
        if event_idx {
            ring = ring.with_event_idx();
        }
        let guest = PackedDriver::over(areas, memory, event_idx, start);
        (
            Box::new(move |kick, call| device(ring, requests, kick, call)),
            Box::new(move |kick, call| driver(guest, requests, kick, call)),
        )
    });
}

#[test]
fn split_with_flags() {
    split(false, 1);
    split(false, 2);
}

#[test]
fn split_with_event_idx() {
    split(true, 1);
    split(true, 2);
}

#[test]
fn packed_with_flags() {
    packed(false, 1);
    packed(false, 2);
}

#[test]
fn packed_with_event_idx() {
    packed(true, 1);
    packed(true, 2);
}
