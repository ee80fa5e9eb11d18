//! What the fuzzer does with a string of bytes: a device that answers with them. A test does the same with the corpus.

use std::time::{Duration, Instant};

use nvlane_memory::{HostMemory, Segment};

use super::{Emulated, EmulatedOptions};
use crate::spec::Status;
use crate::{Controller, Device, Io, IoKind, NvmeError, Options, Qpair, Registers, Submission};

/// The first byte chooses how the device misbehaves, the next ones say how long it behaves first; the rest is mixed
/// into what it says: identify data, completions of both kinds of queues. Whatever it does, the driver touches only its
/// own memory, ends all requests, and lets go of the device within its deadlines.
pub fn device(data: &[u8]) {
    let [way, registers, rest @ ..] = data else { return };
    let Ok(model) = Emulated::new(small()) else { return };
    let device = Noisy { model: model.clone(), registers: *registers, way: *way };
    let mut noise = rest.to_vec();
    noise.reverse();
    // Odd: identify data are noise as well, not only what follows.
    if way & 1 == 1 {
        model.inject(|faults| faults.noise = noise.clone());
    }
    let device: std::sync::Arc<dyn Device> = std::sync::Arc::new(device);
    let Ok(controller) = Controller::attach(device, quick(), Box::new(|_| ())) else { return };
    let mut queues: Vec<Qpair> =
        controller.namespaces().iter().take(2).filter_map(|each| controller.open(each.id).ok()).collect();
    model.inject(|faults| {
        faults.noise = noise;
        faults.swallow = u32::from(way >> 1 & 1);
        faults.abort_useless = way & 4 != 0;
        faults.stays_ready = way & 8 != 0;
        faults.vanished = way & 0x30 == 0x30;
        if way & 0x40 != 0 {
            faults.statuses = vec![Status(u16::from(*registers) << 4); 3];
        }
    });
    if let Ok(memory) = HostMemory::for_dma(256 << 10) {
        for queue in &mut queues {
            requests(queue, &memory);
        }
    }
    drop(queues);
    controller.detach();
    model.inject(|faults| faults.noise.clear());
}

fn small() -> EmulatedOptions {
    let namespaces =
        vec![super::EmulatedNamespace::new(512, 1 << 20), super::EmulatedNamespace::new(4096, 1 << 20)];
    EmulatedOptions { namespaces, queue_entries: 16, io_queues: 4, ..EmulatedOptions::default() }
}

fn quick() -> Options {
    let moment = Duration::from_millis(2);
    Options {
        admin_timeout: moment * 4,
        io_timeout: moment * 2,
        abort_grace: moment,
        ready_limit: moment,
        shutdown: moment,
        tick: moment / 2,
        resets: 3,
        ..Options::default()
    }
}

fn requests(queue: &mut Qpair, memory: &HostMemory) {
    let part = |offset: usize, bytes: usize| {
        // SAFETY: inside the memory, which outlives the requests: they have ended when this returns, see below.
        unsafe { Segment::new(memory.pointer().wrapping_add(offset), bytes) }
    };
    let shift = queue.namespace().block_shift;
    let wanted = [
        (IoKind::Write, [part(0, 4096)]),
        (IoKind::Read, [part(4096, 65536)]),
        (IoKind::Write, [part(514, 8192)]),
        (IoKind::Flush, [part(0, 0)]),
        (IoKind::Deallocate, [part(0, 0)]),
        (IoKind::Read, [part(8194, 196_608)]),
    ];
    let mut open = std::collections::BTreeSet::new();
    for (token, (kind, segments)) in (0..).zip(&wanted) {
        let blocks = if segments[0].is_empty() { 8 } else { (segments[0].len() >> shift) as u64 };
        let io = Io { kind: *kind, lba: 0, blocks, segments, token };
        if queue.submit(&io) == Submission::Pending {
            open.insert(token);
        }
    }
    queue.kick();
    let begun = Instant::now();
    while !open.is_empty() {
        queue.poll(|token, _| assert!(open.remove(&token), "request {token} ends once"));
        assert!(begun.elapsed() < Duration::from_secs(30), "requests {open:?} never end");
        std::thread::yield_now();
    }
    assert_eq!(queue.in_flight(), 0);
}

/// A device whose capabilities are not what they should be.
struct Noisy {
    model: std::sync::Arc<Emulated>,
    registers: u8,
    way: u8,
}

impl Registers for Noisy {
    fn read32(&self, offset: usize) -> u32 {
        self.model.read32(offset)
    }

    fn read64(&self, offset: usize) -> u64 {
        let value = self.model.read64(offset);
        // One byte of CAP, of the driver's first look.
        if self.way & 0x80 != 0 { value ^ u64::from(self.registers) << (8 * (self.way & 7)) } else { value }
    }

    fn write32(&self, offset: usize, value: u32) {
        self.model.write32(offset, value);
    }

    fn write64(&self, offset: usize, value: u64) {
        self.model.write64(offset, value);
    }

    fn len(&self) -> usize {
        self.model.len()
    }
}

impl Device for Noisy {
    fn address(&self) -> &str {
        self.model.address()
    }

    fn reset(&self) -> Result<(), NvmeError> {
        self.model.reset()
    }

    fn set_bus_master(&self, on: bool) -> Result<(), NvmeError> {
        self.model.set_bus_master(on)
    }

    fn vectors(&self) -> u16 {
        self.model.vectors()
    }

    fn connect_vector(
        &self,
        vector: u16,
        event: Option<std::os::fd::BorrowedFd<'_>>,
    ) -> Result<(), NvmeError> {
        self.model.connect_vector(vector, event)
    }

    fn removal(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.model.removal()
    }
}
