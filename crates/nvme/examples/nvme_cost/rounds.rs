//! Rounds of requests, with marks between their sections.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use nvlane_memory::{HostMemory, Segment};
use nvlane_nvme::emulated::{Emulated, EmulatedOptions};
use nvlane_nvme::{Controller, Device, Io, IoKind, Options, Outcome, Qpair, Submission, vfio};

use super::stepper::{mark, rounds};

pub type Failure = Box<dyn std::error::Error>;

const TIMED_ROUNDS: usize = 400;
const WARM_UP: usize = 20;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Bench {
    model: Option<Arc<Emulated>>,
    queue: Qpair,
    _controller: Controller,
    memory: HostMemory,
}

impl Bench {
    fn new(address: Option<&str>) -> Result<Self, Failure> {
        let model = match address {
            Some(_) => None,
            None => {
                Some(Emulated::new(EmulatedOptions { queue_entries: 512, ..EmulatedOptions::default() })?)
            }
        };
        let device: Arc<dyn Device> = match (&model, address) {
            (Some(model), _) => model.clone(),
            (None, address) => vfio::open(address.unwrap_or_default())?,
        };
        let controller = Controller::attach(device, options(), Box::new(|_| ()))?;
        let namespace = controller.namespaces().first().ok_or("no namespace")?.id;
        if let Some(model) = &model {
            model.inject(|faults| faults.hold = true);
        }
        let queue = controller.open(namespace)?;
        Ok(Self { model, queue, _controller: controller, memory: HostMemory::for_dma(1 << 20)? })
    }

    /// The drive does its work. A real one is given time for it.
    fn device(&self, depth: usize) {
        match &self.model {
            Some(model) => {
                model.run();
            }
            None => std::thread::sleep(Duration::from_millis(10 + depth as u64 / 2)),
        }
    }

    /// One round; `at` is called before each section and after the last.
    fn round(&mut self, depth: usize, mut at: impl FnMut(usize)) -> Result<(), Failure> {
        let shift = self.queue.namespace().block_shift;
        // SAFETY: inside the memory, which lives as long as the queue pair here.
        let segment = [unsafe { Segment::new(self.memory.pointer(), 4096) }];
        let mut taken = 0;
        at(0);
        for token in 0..depth as u64 {
            let lba = (token * 4096) >> shift;
            let io = Io { kind: IoKind::Read, lba, blocks: 4096 >> shift, segments: &segment, token };
            taken += usize::from(self.queue.submit(&io) == Submission::Pending);
        }
        at(1);
        self.queue.kick();
        at(2);
        self.device(depth);
        let (mut ended, mut failed) = (0, 0);
        at(3);
        while ended < taken {
            ended += self.queue.poll(|_, outcome| failed += usize::from(outcome != Outcome::Ok));
        }
        at(4);
        if taken == depth && failed == 0 { Ok(()) } else { Err("a request was not taken, or failed".into()) }
    }
}

/// The clock of time-outs stands still: a stepped second is long, and its scan is none of a request's cost.
fn options() -> Options {
    Options { tick: Duration::from_secs(3600), ..Options::default() }
}

/// What is run below the stepper.
pub fn stepped(address: Option<&str>, depth: &str) -> Result<bool, Failure> {
    let depth = depth.parse()?;
    let mut bench = Bench::new(address)?;
    for _ in 0..WARM_UP {
        bench.round(depth, |_| ())?;
    }
    for _ in 0..rounds(depth) {
        bench.round(depth, |_| mark())?;
    }
    Ok(true)
}

/// Median cycles of an I/O, and allocations.
pub fn timed(address: Option<&str>, depth: usize) -> Result<(u64, usize), Failure> {
    let mut bench = Bench::new(address)?;
    let rounds = if address.is_some() { TIMED_ROUNDS / 4 } else { TIMED_ROUNDS };
    let mut cycles = Vec::with_capacity(rounds);
    let mut allocations = 0;
    for round in 0..WARM_UP + rounds {
        let mut times = [(0u64, 0usize); 5];
        bench.round(depth, |section| times[section] = (clock(), ALLOCATIONS.get()))?;
        if round >= WARM_UP {
            cycles.push(times[2].0 - times[0].0 + times[4].0 - times[3].0);
            allocations += times[2].1 - times[0].1 + times[4].1 - times[3].1;
        }
    }
    cycles.sort_unstable();
    Ok((cycles[rounds / 2] / depth as u64, allocations))
}

#[cfg(target_arch = "x86_64")]
fn clock() -> u64 {
    // SAFETY: Linux leaves the time stamp counter to user mode.
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
fn clock() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
}
