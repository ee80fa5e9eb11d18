//! Both rings against a model that knows nothing of rings: what is added comes out in order with the same buffers, what
//! is completed comes back in that order, in whatever way the two sides take turns.

#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::Arc;

use nvlane_memory::{GuestMemory, RegionSpec};
use nvlane_ring::driver::{self, Buffer, Driver, DriverRing, Guest, INDIRECT_FLAG, Used};
use nvlane_ring::{Chain, Layout, Queue, QueueConfig, Ring, Segments, VringBase};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Lengths of readable and writable buffers; in an indirect table.
    Add(Vec<u32>, Vec<u32>, bool),
    /// The driver shows what it added.
    Show,
    Pop,
    /// Which of those in flight, and the length written.
    Complete(prop::sample::Index, u32),
    Publish,
    Reap,
    Arm,
    Suppress,
    EnableCalls,
    DisableCalls,
}

#[derive(Clone, Debug)]
struct Case {
    layout: Layout,
    size: u16,
    event_idx: bool,
    start: u16,
    steps: Vec<Step>,
}

fn step() -> impl Strategy<Value = Step> {
    let lengths = || prop::collection::vec(0u32..0x3000, 0..5);
    prop_oneof![
        4 => (lengths(), lengths(), any::<bool>())
            .prop_map(|(readable, writable, indirect)| Step::Add(readable, writable, indirect)),
        3 => Just(Step::Show),
        4 => Just(Step::Pop),
        4 => (any::<prop::sample::Index>(), any::<u32>()).prop_map(|(which, written)| Step::Complete(which, written)),
        2 => Just(Step::Publish),
        4 => Just(Step::Reap),
        1 => Just(Step::Arm),
        1 => Just(Step::Suppress),
        1 => Just(Step::EnableCalls),
        1 => Just(Step::DisableCalls),
    ]
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        (0u32..7).prop_map(|power| (Layout::Split, 1u16 << power)),
        (1u16..70).prop_map(|size| (Layout::Packed, size)),
    ];
    let start = prop_oneof![Just(0u16), Just(u16::MAX - 20), any::<u16>()];
    (kind, any::<bool>(), start, prop::collection::vec(step(), 1..300))
        .prop_map(|((layout, size), event_idx, start, steps)| Case { layout, size, event_idx, start, steps })
}

/// Three regions without a gap in guest memory and with gaps in ours.
const CUTS: [u64; 4] = [0, 0x10_0000, 0x18_0000, 0x40_0000];
const BUFFERS: u64 = 0x0f_0000;

fn regions(guest: &Guest) -> Arc<GuestMemory> {
    let region = |ends: &[u64]| RegionSpec {
        guest_address: ends[0],
        size: ends[1] - ends[0],
        user_address: 0,
        mmap_offset: ends[0],
        file: guest.file().try_clone().unwrap().into(),
    };
    Arc::new(GuestMemory::map(CUTS.windows(2).map(region).collect()).unwrap())
}

/// What the device must be given for these buffers.
fn pieces(memory: &GuestMemory, buffers: &[Buffer], writable: bool) -> Vec<(*mut u8, usize)> {
    let mut pieces = Vec::new();
    for buffer in buffers.iter().filter(|buffer| buffer.writable == writable) {
        let (mut at, end) = (buffer.address, buffer.address + u64::from(buffer.length));
        while at < end {
            let cut = CUTS.into_iter().find(|&cut| cut > at).unwrap().min(end);
            pieces.push((memory.translate(at, 1).unwrap().0, (cut - at) as usize));
            at = cut;
        }
    }
    pieces
}

struct World {
    guest: Guest,
    memory: Arc<GuestMemory>,
    layout: Layout,
    driver: Driver,
    queue: Queue,
    segments: Segments,
    next_buffer: u64,
    tables: u64,
    added: VecDeque<(u16, Vec<Buffer>)>,
    /// How many of `added` the device can see.
    visible: usize,
    in_flight: Vec<Chain>,
    completed: VecDeque<Used>,
    published: VecDeque<Used>,
    /// The device sleeps; the driver sleeps.
    armed: bool,
    waiting: bool,
}

impl World {
    fn new(case: &Case) -> World {
        let mut guest = Guest::new(CUTS[3]).unwrap();
        let mut config: QueueConfig = guest.queue(case.layout, case.size);
        config.indirect = true;
        config.event_idx = case.event_idx;
        match case.layout {
            Layout::Split => {
                guest.write(config.addresses.driver + 2, &case.start.to_le_bytes());
                guest.write(config.addresses.device + 2, &case.start.to_le_bytes());
                config.base = VringBase(u32::from(case.start));
            }
            Layout::Packed => {
                // Every place looks used, in this lap before the start and in the one before after it.
                let at = case.start % case.size;
                let base = u32::from(case.start & 0x8000 | at);
                config.base = VringBase(base | base << 16);
                for index in 0..case.size {
                    let this_lap = index < at;
                    let flags: u16 = if this_lap == (case.start & 0x8000 != 0) { 0x8080 } else { 0 };
                    guest.write(
                        config.addresses.descriptors + 16 * u64::from(index) + 14,
                        &flags.to_le_bytes(),
                    );
                }
            }
        }
        let driver = guest.driver(&config).unwrap();
        let tables = guest.allocate(0x10000, 0x10000);
        assert!(tables + 0x10000 <= BUFFERS);
        let memory = regions(&guest);
        config.memory = memory.clone();
        let queue = Queue::new(config).unwrap();
        World {
            guest,
            memory,
            layout: case.layout,
            driver,
            queue,
            segments: Segments::new(),
            next_buffer: BUFFERS,
            tables,
            added: VecDeque::new(),
            visible: 0,
            in_flight: Vec::new(),
            completed: VecDeque::new(),
            published: VecDeque::new(),
            armed: false,
            waiting: false,
        }
    }

    fn buffer(&mut self, length: u32, writable: bool) -> Buffer {
        if self.next_buffer + u64::from(length) > CUTS[3] {
            self.next_buffer = BUFFERS;
        }
        let address = self.next_buffer;
        self.next_buffer += u64::from(length);
        Buffer { address, length, writable }
    }

    fn add(&mut self, readable: &[u32], writable: &[u32], indirect: bool) {
        let mut buffers: Vec<Buffer> = readable.iter().map(|&length| self.buffer(length, false)).collect();
        buffers.extend(writable.iter().map(|&length| self.buffer(length, true)));
        let free = self.driver.free();
        let id = if indirect && !buffers.is_empty() {
            let table = driver::table(self.layout, &buffers);
            // At most 70 tables are in use; each has room for 15 entries, at an address that is aligned to 1, 2 or 8.
            let at = self.tables + [1, 2, 8][self.added.len() % 3];
            self.tables = self.tables & !0xffff | (self.tables + 0x100) & 0xffff;
            self.guest.write(at, &table);
            self.driver.add_raw(at, table.len() as u32, INDIRECT_FLAG)
        } else {
            self.driver.add(&buffers)
        };
        let needs = if indirect { 1 } else { buffers.len() };
        assert_eq!(id.is_some(), !buffers.is_empty() && needs <= free);
        if let Some(id) = id {
            self.added.push_back((id, buffers));
            if self.layout == Layout::Packed {
                self.visible = self.added.len();
            }
        }
    }

    fn show(&mut self) {
        self.visible = self.added.len();
        let kick = self.driver.publish();
        assert!(kick || !self.armed || self.visible == 0, "the device sleeps and was not kicked");
        self.armed &= !kick;
    }

    fn pop(&mut self) {
        self.armed = false;
        self.queue.ahead();
        let popped = self.queue.pop(&mut self.segments).unwrap();
        if self.visible == 0 {
            assert_eq!(popped, None);
            return;
        }
        self.visible -= 1;
        let (id, buffers) = self.added.pop_front().unwrap();
        let chain = popped.unwrap();
        assert_eq!(chain.id, id);
        for (segments, writable) in [(self.segments.readable(), false), (self.segments.writable(), true)] {
            let given: Vec<_> = segments.iter().map(|segment| (segment.base(), segment.len())).collect();
            assert_eq!(given, pieces(&self.memory, &buffers, writable));
        }
        self.in_flight.push(chain);
    }

    fn publish(&mut self) {
        let any = !self.completed.is_empty();
        self.published.append(&mut self.completed);
        let call = self.queue.publish();
        assert!(call || !self.waiting || !any, "the driver sleeps and was not called");
        self.waiting &= !call;
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Add(readable, writable, indirect) => self.add(readable, writable, *indirect),
            Step::Show => self.show(),
            Step::Pop => self.pop(),
            Step::Complete(which, written) => {
                if !self.in_flight.is_empty() {
                    let chain = self.in_flight.swap_remove(which.index(self.in_flight.len()));
                    self.queue.complete(chain, *written);
                    self.completed.push_back(Used { id: chain.id, written: *written });
                }
            }
            Step::Publish => self.publish(),
            Step::Reap => {
                self.waiting = false;
                assert_eq!(self.driver.reap(), self.published.pop_front());
            }
            Step::Arm => {
                self.armed = self.queue.arm();
                assert!(!self.armed || self.visible == 0, "it would sleep with work to do");
            }
            Step::Suppress => {
                self.queue.suppress();
                self.armed = false;
            }
            Step::EnableCalls => {
                self.waiting = self.driver.enable_calls();
                assert_eq!(self.waiting, self.published.is_empty());
            }
            Step::DisableCalls => {
                self.driver.disable_calls();
                self.waiting = false;
            }
        }
        assert_eq!(usize::from(self.queue.in_flight()), self.in_flight.len());
        assert_eq!(self.queue.has_work(), self.visible > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_in_comes_out(case in case()) {
        let mut world = World::new(&case);
        for step in &case.steps {
            world.step(step);
        }
        // In the end everything comes back and nothing is lost.
        world.show();
        while world.visible > 0 {
            world.pop();
        }
        while let Some(chain) = world.in_flight.pop() {
            world.queue.complete(chain, 0);
            world.completed.push_back(Used { id: chain.id, written: 0 });
        }
        world.publish();
        world.publish();
        while let Some(used) = world.driver.reap() {
            prop_assert_eq!(Some(used), world.published.pop_front());
        }
        prop_assert!(world.published.is_empty());
        prop_assert_eq!(world.driver.free(), usize::from(case.size));
        prop_assert!(world.queue.arm(), "nothing is left to do");
    }
}
