//! What the fuzzer does with a string of bytes; a test does the same with the corpus in the tree.
//!
//! The bytes are the guest: what it has in its memory when the device starts, and what it changes between the device's
//! steps. The device's steps are those of a reactor. Nothing may panic, no segment may leave guest memory, and no id may
//! be in flight twice.

use std::cell::RefCell;
use std::os::unix::fs::FileExt;

use crate::driver::Guest;
use crate::{Chain, Inflight, Layout, Queue, QueueConfig, Ring, Segments, VringBase};

/// Ring memory, then buffers: 64 KiB of guest memory are enough to go wrong in.
const MEMORY: u64 = 0x1_0000;
const LARGEST: u16 = 256;

/// The guest is made once in each thread: mapping memory for each input would be all that the fuzzer does.
struct World {
    guest: Guest,
    split: QueueConfig,
    packed: QueueConfig,
    split_record: std::fs::File,
    packed_record: std::fs::File,
}

impl World {
    fn new() -> World {
        let mut guest = Guest::new(MEMORY).expect("64 KiB of memory");
        let split = guest.queue(Layout::Split, LARGEST);
        let packed = guest.queue(Layout::Packed, LARGEST);
        let record = |layout| Inflight::create(layout, 1, LARGEST).expect("a few KiB of memory");
        World {
            guest,
            split,
            packed,
            split_record: record(Layout::Split),
            packed_record: record(Layout::Packed),
        }
    }
}

thread_local!(static WORLD: RefCell<World> = RefCell::new(World::new()));

/// Takes the input apart; zeroes when it has ended.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self, count: usize) -> &[u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }
}

/// A split ring.
pub fn split(data: &[u8]) {
    run(data, Layout::Split, false);
}

/// A packed ring.
pub fn packed(data: &[u8]) {
    run(data, Layout::Packed, false);
}

/// The in-flight record of either, with a ring to go with it.
pub fn inflight(data: &[u8]) {
    let layout =
        if data.first().is_some_and(|byte| byte & 0x80 != 0) { Layout::Packed } else { Layout::Split };
    run(data, layout, true);
}

fn run(data: &[u8], layout: Layout, record: bool) {
    WORLD.with_borrow_mut(|world| one_life(world, Input(data), layout, record));
}

fn one_life(world: &mut World, mut input: Input, layout: Layout, record: bool) {
    let (config, file) = match layout {
        Layout::Split => (&world.split, &world.split_record),
        Layout::Packed => (&world.packed, &world.packed_record),
    };
    let mut config = config.clone();
    let options = input.byte();
    config.size = match layout {
        Layout::Split => 1 << (options & 7).min(6),
        Layout::Packed => u16::from(options & 15) * 3 + 1,
    };
    config.event_idx = options & 0x10 != 0;
    config.indirect = options & 0x20 != 0;
    config.base = VringBase(u32::from(input.word()) | u32::from(input.word()) << 16);
    let areas = config.addresses;
    let zeroes = [0; 0x1000];
    for area in [areas.descriptors, areas.driver, areas.device] {
        world.guest.write(area, &zeroes);
    }
    if record {
        let length = Inflight::length(layout, 1, LARGEST);
        file.write_all_at(&vec![0; length], 0).expect("the record's file has that size");
        let bytes = input.word();
        let bytes = input.bytes(usize::from(bytes).min(length));
        file.write_all_at(bytes, 0).expect("the record's file has that size");
        let copy = file.try_clone().expect("one more descriptor");
        let inflight =
            Inflight::map(copy.into(), 0, length as u64, layout, 1, LARGEST).expect("what was created");
        config.inflight = inflight.queue(0);
    }
    let ring = input.word();
    let ring = input.bytes(usize::from(ring).min(0x1000));
    world.guest.write(areas.descriptors, ring);
    for area in [areas.driver, areas.device] {
        let count = input.byte();
        let bytes = input.bytes(usize::from(count));
        world.guest.write(area, bytes);
    }
    if let Ok(queue) = Queue::new(config) {
        device(queue, &world.guest, &mut input, [areas.descriptors, areas.driver, areas.device]);
    }
}

fn device(mut queue: Queue, guest: &Guest, input: &mut Input, areas: [u64; 3]) {
    let mut segments = Segments::new();
    let mut chains: Vec<Chain> = Vec::new();
    let mut idle = 0;
    while !input.0.is_empty() || idle < 3 {
        idle += u8::from(input.0.is_empty());
        let step = input.byte();
        match step % 8 {
            // The guest writes somewhere in its rings, or anywhere.
            0 => {
                let at = areas[usize::from(step >> 3) % 3] + u64::from(input.word() & 0x7ff);
                guest.write(at, input.bytes(usize::from(step >> 5) * 2 + 1));
            }
            1 => {
                let at = u64::from(input.word()).min(MEMORY - 16);
                guest.write(at, input.bytes(16));
            }
            2 if !chains.is_empty() => {
                let chain = chains.swap_remove(usize::from(step >> 3) % chains.len());
                queue.complete(chain, u32::from(step));
            }
            3 => {
                queue.publish();
            }
            4 => {
                if queue.arm() {
                    assert!(!queue.has_work() && !queue.publish());
                }
                queue.suppress();
            }
            _ => {
                queue.prefetch();
                queue.ahead();
                if let Ok(Some(chain)) = queue.pop(&mut segments) {
                    check(&queue, guest, &segments, chain, &chains);
                    chains.push(chain);
                }
            }
        }
        assert_eq!(usize::from(queue.in_flight()), chains.len());
    }
    chains.into_iter().for_each(|chain| queue.complete(chain, 1));
    queue.publish();
    queue.base();
}

fn check(queue: &Queue, guest: &Guest, segments: &Segments, chain: Chain, chains: &[Chain]) {
    assert!(chain.id < queue.size() && chains.iter().all(|other| other.id != chain.id));
    assert!(chains.len() < usize::from(queue.size()));
    let places: usize = chains.iter().map(|chain| usize::from(chain.descriptors)).sum();
    assert!(places + usize::from(chain.descriptors) <= usize::from(queue.size()));
    let start = guest.memory().translate(0, 1).expect("guest memory starts at 0").0 as usize;
    for segment in segments.readable().iter().chain(segments.writable()) {
        let offset = (segment.base() as usize).wrapping_sub(start);
        assert!(!segment.is_empty() && offset < MEMORY as usize && segment.len() <= MEMORY as usize - offset);
    }
}
