//! What a request costs on the rings alone: `cargo run --release -p nvlane-ring --example cost`.
//!
//! Requests are virtio-blk reads: a header of 16 bytes, 4096 bytes, a status. The device takes header and status and does
//! nothing else. `alone`: both sides take turns on one processor, the device's turn is timed. `two`: the driver polls on
//! another thread. The best window counts, as a shared machine asks for it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nvlane_memory::copy;
use nvlane_ring::driver::{self, Buffer, Driver, DriverRing, Guest, INDIRECT_FLAG};
use nvlane_ring::{Inflight, Layout, Queue, QueueConfig, Ring, Segments};

const SIZE: u16 = 256;

struct Load {
    driver: Driver,
    requests: Vec<[Buffer; 3]>,
    tables: Option<u64>,
}

impl Load {
    fn add(&mut self, number: usize) -> bool {
        let place = number % self.requests.len();
        match self.tables {
            Some(tables) => self.driver.add_raw(tables + 64 * place as u64, 48, INDIRECT_FLAG).is_some(),
            None => self.driver.add(&self.requests[place]).is_some(),
        }
    }
}

#[derive(Clone, Copy)]
struct Kind {
    layout: Layout,
    indirect: bool,
    event_idx: bool,
    record: bool,
}

fn sides(kind: Kind, depth: usize) -> (Load, Queue) {
    let mut guest = Guest::new(8 << 20).unwrap();
    let mut config: QueueConfig = guest.queue(kind.layout, SIZE);
    config.event_idx = kind.event_idx;
    config.indirect = kind.indirect;
    if kind.record {
        let file = Inflight::create(kind.layout, 1, SIZE).unwrap();
        let length = Inflight::length(kind.layout, 1, SIZE) as u64;
        config.inflight = Inflight::map(file.into(), 0, length, kind.layout, 1, SIZE).unwrap().queue(0);
    }
    let requests: Vec<[Buffer; 3]> = (0..depth)
        .map(|_| {
            let header = guest.allocate(64, 64);
            let data = guest.allocate(4096, 4096);
            [
                Buffer { address: header, length: 16, writable: false },
                Buffer { address: data, length: 4096, writable: true },
                Buffer { address: header + 16, length: 1, writable: true },
            ]
        })
        .collect();
    let tables = kind.indirect.then(|| {
        let tables = guest.allocate(64 * depth as u64, 64);
        for (place, request) in (0u64..).zip(&requests) {
            guest.write(tables + 64 * place, &driver::table(kind.layout, request));
        }
        tables
    });
    let mut driver = guest.driver(&config).unwrap();
    driver.disable_calls();
    let mut queue = Queue::new(config).unwrap();
    queue.suppress();
    (Load { driver, requests, tables }, queue)
}

/// One turn of a reactor; how many requests it served.
fn turn(queue: &mut impl Ring, segments: &mut Segments) -> usize {
    let mut served = 0;
    while let Some(chain) = queue.pop(segments).unwrap() {
        let mut header = [0; 16];
        assert!(segments.take_header(&mut header));
        let status = segments.take_status().unwrap();
        copy::copy_out(&header[..1], &[status], 0);
        queue.complete(chain, 4097);
        served += 1;
        if served == 32 {
            break;
        }
    }
    queue.publish();
    served
}

fn alone(kind: Kind, depth: usize) -> f64 {
    let (mut load, queue) = sides(kind, depth);
    let mut segments = Segments::new();
    let mut best = f64::MAX;
    let mut run = |queue: &mut dyn FnMut(&mut Segments) -> usize| {
        for _ in 0..20 {
            let mut spent = Duration::ZERO;
            let rounds = 20_000 / depth;
            for _ in 0..rounds {
                assert!((0..depth).all(|number| load.add(number)));
                load.driver.publish();
                let mut served = 0;
                let start = Instant::now();
                while served < depth {
                    served += queue(&mut segments);
                }
                spent += start.elapsed();
                while load.driver.reap().is_some() {}
            }
            best = best.min(spent.as_nanos() as f64 / (rounds * depth) as f64);
        }
    };
    match queue {
        Queue::Split(mut ring) => run(&mut |segments| turn(&mut ring, segments)),
        Queue::Packed(mut ring) => run(&mut |segments| turn(&mut ring, segments)),
    }
    best
}

fn two(kind: Kind, depth: usize) -> f64 {
    let (mut load, queue) = sides(kind, depth);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut best = 0.0f64;
    std::thread::scope(|scope| {
        let (stop, done) = (&stop, &done);
        scope.spawn(move || {
            let mut segments = Segments::new();
            let mut serve = |turn: &mut dyn FnMut(&mut Segments) -> usize| {
                while !stop.load(Ordering::Relaxed) {
                    if turn(&mut segments) == 0 {
                        std::hint::spin_loop();
                    }
                }
            };
            match queue {
                Queue::Split(mut ring) => serve(&mut |segments| turn(&mut ring, segments)),
                Queue::Packed(mut ring) => serve(&mut |segments| turn(&mut ring, segments)),
            }
        });
        scope.spawn(move || {
            assert!((0..depth).all(|number| load.add(number)));
            load.driver.publish();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut reaped = 0;
                while load.driver.reap().is_some() {
                    reaped += 1;
                }
                for _ in 0..reaped {
                    assert!(load.add(number));
                    number += 1;
                }
                load.driver.publish();
                done.fetch_add(reaped, Ordering::Relaxed);
            }
        });
        for _ in 0..150 {
            let (before, start) = (done.load(Ordering::Relaxed), Instant::now());
            std::thread::sleep(Duration::from_millis(5));
            let rate = (done.load(Ordering::Relaxed) - before) as f64 / start.elapsed().as_secs_f64();
            best = best.max(rate);
        }
        stop.store(true, Ordering::Relaxed);
    });
    best
}

fn main() {
    println!("{:42} {:>6} {:>12} {:>14}", "ring", "depth", "alone, ns", "two, kIOPS");
    for layout in [Layout::Split, Layout::Packed] {
        for (indirect, event_idx, record) in
            [(false, false, false), (true, false, false), (true, true, false), (false, false, true)]
        {
            let kind = Kind { layout, indirect, event_idx, record };
            let name = format!(
                "{layout:?}{}{}{}",
                if indirect { ", indirect" } else { "" },
                if event_idx { ", EVENT_IDX" } else { "" },
                if record { ", in-flight record" } else { "" }
            );
            for depth in [1, 8, 32, 64] {
                println!("{name:42} {depth:6} {:12.1} {:14.0}", alone(kind, depth), two(kind, depth) / 1e3);
            }
        }
    }
}
