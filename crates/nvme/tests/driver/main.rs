//! The whole driver against a modelled controller.

mod data;
mod events;
mod faults;
mod limits;
mod sleep;

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nvlane_memory::{HostMemory, Segment};
use nvlane_nvme::emulated::{Emulated, EmulatedOptions};
use nvlane_nvme::{Controller, Event, Io, IoKind, NvmeError, Options, Outcome, Qpair, Submission};

/// Quick time-outs: nothing here takes long.
pub fn quick() -> Options {
    Options {
        admin_timeout: Duration::from_millis(500),
        io_timeout: Duration::from_millis(40),
        abort_grace: Duration::from_millis(20),
        ready_limit: Duration::from_millis(100),
        shutdown: Duration::from_millis(200),
        tick: Duration::from_millis(5),
        ..Options::default()
    }
}

pub struct Bench {
    pub device: Arc<Emulated>,
    pub controller: Controller,
    pub events: Receiver<Event>,
}

impl Bench {
    pub fn new(model: EmulatedOptions) -> Self {
        Self::with(model, quick())
    }

    pub fn with(model: EmulatedOptions, options: Options) -> Self {
        let device = Emulated::new(model).unwrap();
        let (controller, events) = attach(&device, options).unwrap();
        Self { device, controller, events }
    }

    /// The next event that is wanted; others are passed over.
    pub fn event(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let event =
                self.events.recv_timeout(deadline - Instant::now()).expect("an event within ten seconds");
            if wanted(&event) {
                return event;
            }
        }
    }

    /// The driver did nothing that a device could complain about.
    pub fn is_content(&self) {
        assert_eq!(self.device.complaints(), Vec::<String>::new());
    }
}

pub fn attach(device: &Arc<Emulated>, options: Options) -> Result<(Controller, Receiver<Event>), NvmeError> {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let listener = move |event| {
        let _ = sender.lock().unwrap().send(event);
    };
    Controller::attach(device.clone(), options, Box::new(listener)).map(|controller| (controller, events))
}

/// Memory that a guest could have.
pub struct Memory {
    memory: HostMemory,
    /// What was asked for; it may have become a whole huge page.
    bytes: usize,
}

impl Memory {
    pub fn new(bytes: usize) -> Self {
        Self { memory: HostMemory::for_dma(bytes).unwrap(), bytes }
    }

    pub fn part(&self, offset: usize, bytes: usize) -> Segment {
        assert!(offset + bytes <= self.bytes);
        // SAFETY: inside the memory, which each test keeps until its requests have ended.
        unsafe { Segment::new(self.memory.pointer().add(offset), bytes) }
    }

    pub fn fill(&self, seed: u8) -> Vec<u8> {
        let bytes: Vec<u8> =
            (0..self.bytes).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed).collect();
        nvlane_memory::copy::copy_out(&bytes, &[self.part(0, self.bytes)], 0);
        bytes
    }

    pub fn read(&self, segments: &[Segment]) -> Vec<u8> {
        let mut bytes = vec![0; nvlane_memory::total(segments)];
        nvlane_memory::copy::copy_in(segments, 0, &mut bytes);
        bytes
    }
}

/// Polls until this many requests have ended.
pub fn finish(queue: &mut Qpair, count: usize) -> Vec<(u64, Outcome)> {
    let mut done = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while done.len() < count {
        queue.poll(|token, outcome| done.push((token, outcome)));
        assert!(Instant::now() < deadline, "{} of {count} requests ended", done.len());
        std::thread::yield_now();
    }
    done
}

/// Submits one request, whatever it takes, and waits for its outcome.
pub fn run(queue: &mut Qpair, io: &Io) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match queue.submit(io) {
            Submission::Done(outcome) => return outcome,
            Submission::Pending => break,
            Submission::Busy => {
                queue.poll(|_, _| panic!("nothing else is in flight"));
                assert!(Instant::now() < deadline, "it stays busy");
                std::thread::yield_now();
            }
        }
    }
    queue.kick();
    let done = finish(queue, 1);
    assert_eq!(done[0].0, io.token);
    done[0].1
}

pub fn io<'a>(kind: IoKind, lba: u64, blocks: u64, segments: &'a [Segment], token: u64) -> Io<'a> {
    Io { kind, lba, blocks, segments, token }
}

pub fn read<'a>(lba: u64, blocks: u64, segments: &'a [Segment], token: u64) -> Io<'a> {
    io(IoKind::Read, lba, blocks, segments, token)
}

pub fn write<'a>(lba: u64, blocks: u64, segments: &'a [Segment], token: u64) -> Io<'a> {
    io(IoKind::Write, lba, blocks, segments, token)
}
