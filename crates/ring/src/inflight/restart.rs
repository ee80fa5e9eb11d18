//! A device that is killed at any store, and started again: no request is lost, and none is done again that the driver
//! was told of.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;

use super::Inflight;
use crate::driver::{Buffer, Driver, DriverRing, Guest};
use crate::sync::kill;
use crate::{Chain, Layout, Queue, QueueConfig, Ring, RingError, Segments, VringBase};

/// A small generator of numbers (xorshift), the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

struct World {
    guest: Guest,
    config: QueueConfig,
    record: File,
    driver: Driver,
    buffers: u64,
    /// What the driver has added and not got back, oldest first.
    outstanding: VecDeque<u16>,
    /// The used index when the last process started.
    began: Cell<u16>,
    /// The front end gives that index and not today's: the last moment it can have looked is any since then.
    looked_early: bool,
}

const SIZE: u16 = 8;

impl World {
    fn new(layout: Layout, start: u16) -> World {
        let mut guest = Guest::new(0x10_0000).unwrap();
        let mut config = guest.queue(layout, SIZE);
        config.event_idx = true;
        if layout == Layout::Split {
            guest.write(config.addresses.driver + 2, &start.to_le_bytes());
            guest.write(config.addresses.device + 2, &start.to_le_bytes());
            config.base = VringBase(u32::from(start));
        } else {
            let at = start % SIZE;
            config.base = VringBase(u32::from(at | 0x8000) | u32::from(at | 0x8000) << 16);
            for index in 0..u64::from(at) {
                guest.write(config.addresses.descriptors + 16 * index + 14, &0x8080u16.to_le_bytes());
            }
        }
        let driver = guest.driver(&config).unwrap();
        let buffers = guest.allocate(0x1000, 0x1000);
        let record = Inflight::create(layout, 1, SIZE).unwrap();
        let (outstanding, began) = (VecDeque::new(), Cell::new(start));
        World { guest, config, record, driver, buffers, outstanding, began, looked_early: false }
    }

    fn add(&mut self, length: usize) {
        let buffers: Vec<Buffer> = (0..length)
            .map(|place| Buffer {
                address: self.buffers + place as u64 * 64,
                length: 64,
                writable: place > 0,
            })
            .collect();
        if let Some(id) = self.driver.add(&buffers) {
            self.outstanding.push_back(id);
        }
        self.driver.publish();
    }

    fn reap(&mut self) {
        while let Some(used) = self.driver.reap() {
            let at = self.outstanding.iter().position(|&id| id == used.id);
            self.outstanding.remove(at.expect("reported twice"));
        }
    }

    /// The queue as a new process makes it, with the number that QEMU gives after a lost connection: the used index as it
    /// was when QEMU noticed.
    fn start(&self) -> Result<Queue, RingError> {
        let mut config = self.config.clone();
        config.memory = self.guest.mapped_again().unwrap();
        let file = self.record.try_clone().unwrap().into();
        let length = Inflight::length(config.layout, 1, SIZE) as u64;
        let inflight = Inflight::map(file, 0, length, config.layout, 1, SIZE).unwrap();
        config.inflight = inflight.queue(0);
        if config.layout == Layout::Split {
            let used = self.guest.read(config.addresses.device + 2, 2);
            let used = u16::from_le_bytes([used[0], used[1]]);
            let before = self.began.replace(used);
            config.base = VringBase(u32::from(if self.looked_early { before } else { used }));
        }
        Queue::new(config)
    }

    /// After a crash: what is given again is what the driver waits for and was not told of, oldest first; and it works.
    fn check(&mut self) {
        let mut queue = self.start().unwrap();
        let recovered = queue.recovered();
        let mut segments = Segments::new();
        let mut chains = Vec::new();
        while let Some(chain) = queue.pop(&mut segments).unwrap() {
            chains.push(chain);
        }
        self.reap();
        let ids: Vec<u16> = chains.iter().map(|chain| chain.id).collect();
        assert_eq!(VecDeque::from(ids), self.outstanding, "of these {recovered} were in flight");
        for chain in chains.into_iter().rev() {
            queue.complete(chain, 64);
        }
        queue.publish();
        self.reap();
        assert!(self.outstanding.is_empty(), "lost: {:?}", self.outstanding);
        assert_eq!(self.driver.free(), usize::from(SIZE));
    }
}

/// What a device does with its time: takes some, completes some in any order, shows them. The driver looks often.
fn live(world: &mut World, numbers: &mut Numbers, rounds: usize) {
    let mut queue = world.start().unwrap();
    let mut segments = Segments::new();
    let mut chains: Vec<Chain> = Vec::new();
    for _ in 0..rounds {
        for _ in 0..numbers.below(5) {
            chains.extend(queue.pop(&mut segments).unwrap());
        }
        for _ in 0..numbers.below(4).min(chains.len()) {
            let chain = chains.swap_remove(numbers.below(chains.len()));
            queue.complete(chain, 1);
        }
        if numbers.below(3) > 0 {
            queue.publish();
        }
        if numbers.below(3) > 0 {
            world.reap();
        }
    }
}

/// One life, killed after `stores`; whether it was.
fn one_life(world: &mut World, seed: u64, stores: u32, rounds: usize) -> bool {
    kill::after(stores, || live(world, &mut Numbers(seed), rounds)).is_none()
}

fn every_store(layout: Layout, seed: u64) -> u32 {
    for stores in 0.. {
        // Whether the driver takes what it got, and adds more, before the next process starts.
        for guest_acts in [false, true] {
            let mut world = World::new(layout, (seed as u16).wrapping_mul(13).wrapping_sub(3));
            let mut numbers = Numbers(seed);
            for _ in 0..6 {
                world.add(1 + numbers.below(3));
            }
            let killed = one_life(&mut world, seed, stores, 4);
            if guest_acts {
                world.reap();
                world.add(2);
                world.add(1);
            }
            world.check();
            if !killed {
                return stores;
            }
        }
    }
    unreachable!()
}

#[test]
fn killed_after_every_store() {
    for layout in [Layout::Split, Layout::Packed] {
        for seed in 1..40 {
            assert!(every_store(layout, seed) > 20, "too short a life to show anything");
        }
    }
}

/// The recovery is itself killed at every store.
#[test]
fn killed_after_every_store_of_the_recovery() {
    for layout in [Layout::Split, Layout::Packed] {
        for (seed, first) in (1..8).flat_map(|seed| (0..200).step_by(3).map(move |first| (seed, first))) {
            for second in 0.. {
                let mut world = World::new(layout, seed as u16);
                let mut numbers = Numbers(seed);
                for _ in 0..5 {
                    world.add(1 + numbers.below(2));
                }
                one_life(&mut world, seed, first, 4);
                let killed = kill::after(second, || world.start().unwrap()).is_none();
                world.check();
                if !killed {
                    break;
                }
            }
        }
    }
}

/// Many lives one after the other, the guest alive all the time.
#[test]
fn a_hundred_lives() {
    for layout in [Layout::Split, Layout::Packed] {
        for seed in 1..30u64 {
            let mut world = World::new(layout, (seed as u16).wrapping_mul(2111));
            world.looked_early = seed % 2 == 0;
            let mut numbers = Numbers(seed);
            for life in 0..100 {
                for _ in 0..numbers.below(6) {
                    world.add(1 + numbers.below(4));
                }
                let stores = numbers.below(120) as u32;
                one_life(&mut world, seed * 1000 + life, stores, 5);
                if numbers.below(2) == 0 {
                    world.reap();
                }
            }
            world.check();
        }
    }
}

/// A record whose used index was never set says nothing about entry 0 (SPDK's issue 3766: it was taken for completed,
/// and the request in it was lost).
#[test]
fn a_new_record_on_an_old_ring_loses_nothing() {
    let mut world = World::new(Layout::Split, 100);
    for _ in 0..3 {
        world.add(1);
    }
    let mut queue = world.start().unwrap();
    let mut segments = Segments::new();
    while queue.pop(&mut segments).unwrap().is_some() {}
    drop(queue);
    world.check();
}

#[test]
fn rubbish_breaks_the_queue_and_nothing_else() {
    for layout in [Layout::Split, Layout::Packed] {
        let length = Inflight::length(layout, 1, SIZE);
        let mut numbers = Numbers(7);
        for _ in 0..20_000 {
            let mut world = World::new(layout, 5);
            world.add(2);
            one_life(&mut world, 3, 60, 2);
            // A record that was right, with a few numbers changed.
            for _ in 0..1 + numbers.below(4) {
                let value = [0, 1, 2, 7, 8, 255, numbers.below(256)][numbers.below(7)] as u8;
                let at = if numbers.below(2) == 0 { numbers.below(32) } else { numbers.below(length) };
                std::os::unix::fs::FileExt::write_all_at(&world.record, &[value], at as u64).unwrap();
            }
            if let Ok(mut queue) = world.start() {
                let mut segments = Segments::new();
                let mut chains = Vec::new();
                while let Ok(Some(chain)) = queue.pop(&mut segments) {
                    chains.push(chain);
                }
                assert!(chains.len() <= usize::from(SIZE));
                chains.into_iter().for_each(|chain| queue.complete(chain, 0));
                queue.publish();
            }
        }
    }
}
