//! Registers and queues of the model.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use super::admin::Events;
use super::media::Media;
use super::{Counters, EmulatedOptions, Faults};
use crate::dma::reach::Reach;
use crate::inbox::signal;
use crate::spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Completion, Configuration, Status, register};

pub(super) struct SubmissionQueue {
    pub base: u64,
    pub entries: u16,
    pub head: u16,
    pub tail: u16,
    pub completion: u16,
}

pub(super) struct CompletionQueue {
    pub base: u64,
    pub entries: u16,
    pub head: u16,
    pub tail: u16,
    pub phase: bool,
    pub vector: Option<u16>,
}

pub(super) struct Processor {
    pub options: EmulatedOptions,
    pub reach: Arc<Reach>,
    pub media: Media,
    pub faults: Faults,
    pub bus_master: bool,
    pub complaints: Vec<String>,
    pub counters: Counters,
    configuration: u32,
    status: u32,
    /// AQA, ASQ, ACQ.
    admin: [u32; 5],
    pub submissions: BTreeMap<u16, SubmissionQueue>,
    pub completions: BTreeMap<u16, CompletionQueue>,
    pub events: Events,
    /// Shadow doorbells and event indices.
    pub shadows: Option<(u64, u64)>,
    vectors: Vec<Option<OwnedFd>>,
}

const VERSION: u32 = 0x0001_0400;

impl Processor {
    pub fn new(options: EmulatedOptions, reach: Arc<Reach>) -> Self {
        Self {
            media: Media::new(options.namespaces.clone()),
            vectors: (0..options.vectors).map(|_| None).collect(),
            options,
            reach,
            faults: Faults::default(),
            bus_master: false,
            complaints: Vec::new(),
            counters: Counters::default(),
            configuration: 0,
            status: 0,
            admin: [0; 5],
            submissions: BTreeMap::new(),
            completions: BTreeMap::new(),
            events: Events::default(),
            shadows: None,
        }
    }

    pub fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    fn stride(&self) -> usize {
        4 << self.options.doorbell_stride_shift
    }

    pub fn read(&self, offset: usize) -> u32 {
        if self.faults.vanished {
            return u32::MAX;
        }
        match offset {
            // TO: one unit of 500 ms.
            register::CAP => u32::from(self.options.queue_entries - 1) | 1 << 16 | 1 << 24,
            0x04 => u32::from(self.options.doorbell_stride_shift) | 1 << 5,
            register::VS => VERSION,
            register::CC => self.configuration,
            register::CSTS => self.status | u32::from(self.faults.fatal) << 1,
            register::AQA => self.admin[0],
            _ => 0,
        }
    }

    pub fn write(&mut self, offset: usize, value: u32) {
        if self.faults.vanished {
            return;
        }
        match offset {
            register::CC => self.configure(value),
            register::AQA => self.admin[0] = value,
            register::ASQ => self.admin[1] = value,
            0x2c => self.admin[2] = value,
            register::ACQ => self.admin[3] = value,
            0x34 => self.admin[4] = value,
            register::DOORBELLS.. => self.doorbell((offset - register::DOORBELLS) / self.stride(), value),
            _ => self.complain(format!("a write to register {offset:#x}")),
        }
    }

    fn configure(&mut self, value: u32) {
        let (old, new) = (Configuration(self.configuration), Configuration(value));
        self.configuration = value;
        if new.is_shutting_down() && !old.is_shutting_down() {
            self.counters.shutdowns += 1;
            self.status |= 2 << 2;
        }
        if new.is_enabled() && !old.is_enabled() && !self.faults.never_ready {
            self.enable();
        } else if !new.is_enabled() {
            if !self.faults.stays_ready {
                self.status = 0;
            }
            self.faults.fatal = false;
            self.submissions.clear();
            self.completions.clear();
            self.events = Events::default();
            self.shadows = None;
        }
    }

    fn enable(&mut self) {
        self.counters.enables += 1;
        if self.configuration >> 16 != 0x46 {
            self.complain(format!("CC is {:#x}: entry sizes are not 6 and 4", self.configuration));
        }
        let address = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let [sizes, sq_low, sq_high, cq_low, cq_high] = self.admin;
        let submission = SubmissionQueue {
            base: address(sq_low, sq_high),
            entries: (sizes & 0xfff) as u16 + 1,
            head: 0,
            tail: 0,
            completion: 0,
        };
        let completion = CompletionQueue {
            base: address(cq_low, cq_high),
            entries: (sizes >> 16 & 0xfff) as u16 + 1,
            head: 0,
            tail: 0,
            phase: true,
            vector: Some(0),
        };
        self.submissions.insert(0, submission);
        self.completions.insert(0, completion);
        self.status = 1;
    }

    fn doorbell(&mut self, index: usize, value: u32) {
        let (queue, is_completion) = ((index / 2) as u16, index % 2 == 1);
        if self.status & 1 == 0 {
            return;
        }
        if is_completion {
            self.counters.completion_doorbells += 1;
            match self.completions.get_mut(&queue) {
                Some(found) if value < u32::from(found.entries) => found.head = value as u16,
                None => {} // of a life before a reset: the queue is not there, and nothing happens
                Some(_) => {
                    self.complain(format!("the head of completion queue {queue} is said to be {value}"))
                }
            }
        } else {
            self.counters.submission_doorbells += 1;
            match self.submissions.get_mut(&queue) {
                Some(found) if value < u32::from(found.entries) => found.tail = value as u16,
                None => return,
                Some(_) => {
                    return self
                        .complain(format!("the tail of submission queue {queue} is said to be {value}"));
                }
            }
            if queue == 0 || !self.faults.hold {
                self.run(queue);
            }
        }
    }

    pub fn run_all(&mut self) -> usize {
        let queues: Vec<u16> = self.submissions.keys().copied().filter(|&queue| queue != 0).collect();
        queues.into_iter().map(|queue| self.run(queue)).sum()
    }

    /// Takes commands until the queue is empty, or its completion queue full.
    fn run(&mut self, queue: u16) -> usize {
        let mut count = 0;
        loop {
            self.look_at_shadows(queue);
            let Some(found) = self.submissions.get_mut(&queue) else { return count };
            let full = self
                .completions
                .get(&found.completion)
                .is_none_or(|cq| (cq.tail + 1) % cq.entries == cq.head);
            if found.head == found.tail || full {
                return count;
            }
            let address = found.base + u64::from(found.head) * COMMAND_BYTES as u64;
            found.head = (found.head + 1) % found.entries;
            let mut bytes = [0; COMMAND_BYTES];
            if !self.bus_master || self.reach.read(address, &mut bytes).is_none() {
                self.complain(format!("no command of queue {queue} can be read at {address:#x}"));
                self.faults.fatal = true;
                return count;
            }
            let mut command = Command::default();
            for (word, four) in command.0.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_le_bytes(four.try_into().unwrap_or_default());
            }
            self.counters.commands += 1;
            count += 1;
            self.execute(queue, &command);
        }
    }

    fn look_at_shadows(&mut self, queue: u16) {
        let (Some((shadows, events)), 1..) = (self.shadows, queue) else { return };
        let stride = self.stride() as u64;
        let at = |is_completion: bool| (2 * u64::from(queue) + u64::from(is_completion)) * stride;
        let read = |address| {
            let mut bytes = [0; 4];
            self.reach.read(address, &mut bytes).map(|()| u32::from_le_bytes(bytes) as u16)
        };
        let (tail, head) = (read(shadows + at(false)), read(shadows + at(true)));
        if let (Some(found), Some(tail)) = (self.submissions.get_mut(&queue), tail) {
            found.tail = tail % found.entries;
            self.reach.publish32(events + at(false), u32::from(found.tail));
        }
        if let (Some(found), Some(head)) = (self.completions.get_mut(&queue), head) {
            found.head = head % found.entries;
            self.reach.publish32(events + at(true), u32::from(found.head));
        }
    }

    fn execute(&mut self, queue: u16, command: &Command) {
        let answer = if queue == 0 { self.admin_command(command) } else { self.io_command(command) };
        if let Some((status, result)) = answer {
            self.complete(queue, command.identifier(), status, result);
        }
    }

    fn io_command(&mut self, command: &Command) -> Option<(Status, u32)> {
        if self.faults.swallow > 0 {
            self.faults.swallow -= 1;
            return None;
        }
        if let Some(status) = self.faults.statuses.pop() {
            return Some((status, 0));
        }
        let (media, reach, counters) = (&mut self.media, &*self.reach, &mut self.counters);
        let status = media.execute(command, reach, counters).unwrap_or_else(|why| {
            self.complaints.push(why);
            Status::DATA_TRANSFER_ERROR
        });
        Some((status, 0))
    }

    pub fn complete(&mut self, queue: u16, identifier: u16, status: Status, result: u32) {
        let Some(submission) = self.submissions.get(&queue) else { return };
        let (sq_head, number) = (submission.head, submission.completion);
        let Some(found) = self.completions.get_mut(&number) else { return };
        let completion = Completion { result, sq_head, sq_id: queue, identifier, phase: found.phase, status };
        let (mut third, mut fourth) = completion.words();
        let mut first = result;
        if queue != 0 {
            if let Some((third_mask, fourth_mask)) = self.faults.garble.take() {
                third ^= third_mask;
                fourth ^= fourth_mask;
            }
        }
        third ^= u32::from(self.faults.noise()) << 8;
        fourth ^= u32::from(self.faults.noise()) << 12 & !(1 << 16);
        first ^= u32::from(self.faults.noise());
        let address = found.base + u64::from(found.tail) * COMPLETION_BYTES as u64;
        found.tail = (found.tail + 1) % found.entries;
        found.phase ^= found.tail == 0;
        let vector = found.vector;
        let mut words = [0; 12];
        words[0..4].copy_from_slice(&first.to_le_bytes());
        words[8..12].copy_from_slice(&third.to_le_bytes());
        let written =
            self.reach.write(address, &words).and_then(|()| self.reach.publish32(address + 12, fourth));
        if written.is_none() || !self.bus_master {
            self.complain(format!("no completion of queue {queue} can be written at {address:#x}"));
        }
        let connected = vector.and_then(|vector| self.vectors.get(usize::from(vector)));
        if let Some(Some(event)) = connected {
            signal(event.as_fd());
        }
    }

    pub fn connect(&mut self, vector: u16, event: Option<OwnedFd>) {
        if let Some(place) = self.vectors.get_mut(usize::from(vector)) {
            *place = event;
        }
    }
}
