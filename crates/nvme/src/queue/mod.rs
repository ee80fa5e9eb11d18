//! A queue pair: one reactor's way to a namespace.
//!
//! The path of a request: PRPs are made from its segments, a command is written into the submission queue, and one
//! doorbell (`kick`) publishes all that were written since the last one. `poll` takes completions by their phase bit.
//! None of this allocates or calls the system. Everything that happens rarely is in `split` (requests of several
//! commands), `news` (resets, removal) and `late` (time-outs).

mod feed;
mod io;
mod late;
mod news;
mod prp;
mod rings;
mod sleep;
mod split;
mod staging;
mod tracker;

use std::sync::Arc;

pub use io::{Io, IoKind, Outcome, Submission};
pub(crate) use rings::{EVENT_INDICES, Rings, SHADOWS, Shadows};

use crate::inbox::{Message, drain};
use crate::link::Link;
use crate::spec::{Command, Completion, Status, io as opcode};
use crate::{Namespace, NvmeError};
use split::{SEGMENTS, Splits};
use staging::Staging;
use tracker::{NONE, Trackers};

/// What commands may carry, from identify data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Bytes of one command with data.
    pub max_transfer: Option<usize>,
    /// Bytes of one Write Zeroes.
    pub write_zeroes: Option<usize>,
    /// Blocks of one range to deallocate.
    pub deallocate: u32,
    pub volatile_cache: bool,
    pub has_write_zeroes: bool,
    pub has_deallocate: bool,
    pub io_ticks: u32,
    pub grace_ticks: u32,
    pub retries: u8,
}

/// See the module. Drop it when nothing is in flight any more: memory of requests must live until their outcome.
pub struct Qpair {
    link: Arc<Link>,
    namespace: Arc<Namespace>,
    limits: Limits,
    epoch: u32,
    tick: u32,
    /// None while the controller is being reset, and after its end.
    rings: Option<Rings>,
    /// The rings of the life before: the device may still write there.
    old: Option<Rings>,
    /// What stands in the old completion queue counts.
    old_is_trusted: bool,
    dead: Option<Outcome>,
    trackers: Trackers,
    splits: Splits,
    staging: Staging,
    /// The namespace's identifier, log2 of bytes in a block, blocks in a command with data, the boundary's mask or 0.
    id: u32,
    shift: u32,
    max_blocks: u64,
    boundary: u64,
    in_flight: usize,
    sleep: Sleep,
}

/// Interrupts: none while the reactor polls.
struct Sleep {
    armed: bool,
    /// The vector is connected: interrupts come.
    connected: bool,
    /// Completions since it slept last.
    awake: u32,
}

/// Completions without a sleep after which interrupts are turned off: they would only cost.
const BUSY: u32 = 1024;

impl Qpair {
    pub(crate) fn new(link: Arc<Link>, namespace: Arc<Namespace>, limits: Limits) -> Result<Self, NvmeError> {
        let trackers = (link.entries / 2).max(1);
        let staging = Staging::new(trackers, limits.max_transfer)?;
        let boundary = u64::from(namespace.data.optimal_boundary);
        Ok(Self {
            id: namespace.id,
            shift: u32::from(namespace.block_shift),
            max_blocks: (staging.max_transfer >> namespace.block_shift).clamp(1, 65536) as u64,
            // Linux too goes by powers of two only (drivers/nvme/host/core.c, nvme_set_chunk_sectors).
            boundary: if boundary.is_power_of_two() { boundary } else { 0 },
            link,
            namespace,
            limits,
            epoch: 0,
            tick: 0,
            rings: None,
            old: None,
            old_is_trusted: true,
            dead: None,
            trackers: Trackers::new(trackers),
            splits: Splits::new(),
            staging,
            in_flight: 0,
            sleep: Sleep { armed: false, connected: false, awake: 0 },
        })
    }

    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Requests whose outcome has not been told.
    #[inline]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Requests that can be in flight at a time, at most.
    pub fn depth(&self) -> usize {
        usize::from(self.trackers.len())
    }

    /// Takes a request. Nothing reaches the device before `kick`.
    #[inline]
    pub fn submit(&mut self, io: &Io) -> Submission {
        let short = io.blocks.wrapping_sub(1) < self.max_blocks;
        if io.kind.has_data() && short && !self.crosses(io.lba, io.blocks) {
            if self.rings.is_none() && !self.is_back() {
                return self.refuse();
            }
            let Some(slot) = self.trackers.peek() else { return Submission::Busy };
            let bytes = (io.blocks << self.shift) as usize;
            if let Some(prps) = self.staging.describe(slot, io.segments.iter().copied(), bytes) {
                let opcode = if io.kind == IoKind::Read { opcode::READ } else { opcode::WRITE };
                let (id, lba, blocks) = (self.id, io.lba, io.blocks as u32);
                self.send(|identifier| Command::data(opcode, id, lba, blocks, prps, identifier), io.token);
                self.in_flight += 1;
                return Submission::Pending;
            }
        }
        self.submit_other(io)
    }

    /// Nobody polls while nothing is in flight: then the next request looks for news. True when there are rings.
    #[cold]
    fn is_back(&mut self) -> bool {
        if self.in_flight == 0 {
            self.listen();
        }
        self.rings.is_some()
    }

    /// While nothing is in flight: takes what the supervisor says, and the signal with which it said so.
    pub fn listen(&mut self) {
        debug_assert_eq!(self.in_flight, 0);
        if self.sleep.armed {
            self.wake();
        } else {
            drain(self.link.event());
        }
        if self.link.epoch() != self.epoch {
            self.hear(&mut |_, _| ());
        }
    }

    #[cold]
    fn refuse(&self) -> Submission {
        self.dead.map_or(Submission::Busy, Submission::Done)
    }

    #[inline]
    fn crosses(&self, lba: u64, blocks: u64) -> bool {
        self.boundary != 0 && (lba & (self.boundary - 1)) + blocks > self.boundary
    }

    #[inline(always)]
    fn send(&mut self, make: impl FnOnce(u16) -> Command, token: u64) -> &mut tracker::Tracker {
        if self.in_flight == 0 {
            // Nobody has looked at the clock meanwhile.
            self.tick = self.link.tick();
        }
        let tracker = self.trackers.take(make, token, self.tick);
        if let Some(rings) = &mut self.rings {
            rings.push(&tracker.command);
        }
        tracker
    }

    /// What is no plain read or write.
    fn submit_other(&mut self, io: &Io) -> Submission {
        let unsupported = Submission::Done(Outcome::Failed(Status::INVALID_OPCODE));
        if self.rings.is_none() && !self.is_back() {
            return self.refuse();
        }
        match io.kind {
            // Without a volatile cache what was written is on the medium, and Flush is none of the drive's business.
            IoKind::Flush if !self.limits.volatile_cache => return Submission::Done(Outcome::Ok),
            IoKind::Deallocate if !self.limits.has_deallocate => return unsupported,
            IoKind::WriteZeroes { .. } if !self.limits.has_write_zeroes => return unsupported,
            IoKind::Flush => {}
            _ if io.blocks == 0 => return Submission::Done(Outcome::Ok),
            _ => {}
        }
        let length = io.segments.iter().map(|segment| segment.len() as u64).sum::<u64>();
        if io.segments.len() > SEGMENTS || io.kind.has_data() && length != io.blocks << self.shift {
            return Submission::Done(Outcome::Failed(Status::INVALID_FIELD));
        }
        if self.trackers.peek().is_none() {
            return Submission::Busy;
        }
        let Some(index) = self.splits.take(io) else { return Submission::Busy };
        if io.kind == IoKind::Flush {
            self.splits.get_mut(index).blocks = 1;
        }
        if self.in_flight == 0 {
            self.tick = self.link.tick();
        }
        self.in_flight += 1;
        self.feed(index);
        Submission::Pending
    }

    /// Publishes what was submitted.
    #[inline]
    pub fn kick(&mut self) {
        if let Some(rings) = &mut self.rings {
            // Queues that a reset has taken away are let alone: `poll` hears of it.
            if self.link.epoch() == self.epoch {
                rings.kick();
            }
        }
    }

    /// Takes completions; `done` gets each request's token and outcome. Returns how many requests ended.
    #[inline]
    pub fn poll(&mut self, mut done: impl FnMut(u64, Outcome)) -> usize {
        let before = self.in_flight;
        if self.link.epoch() != self.epoch {
            self.hear(&mut done);
        }
        if self.sleep.armed {
            self.wake();
        }
        if self.in_flight != 0 {
            self.reap(&mut done);
            let tick = self.link.tick();
            if tick != self.tick {
                self.tick = tick;
                self.report_late();
            }
        }
        before - self.in_flight
    }

    #[inline]
    fn reap(&mut self, done: &mut impl FnMut(u64, Outcome)) {
        let mut any = 0;
        while let Some(completion) = self.rings.as_mut().and_then(Rings::pop) {
            any += 1;
            let slot = match self.check(&completion) {
                Ok(slot) => slot,
                Err(what) => return self.distrust(what),
            };
            self.complete(slot, completion.status, done);
        }
        if any != 0 {
            self.sleep.awake += any;
            self.after();
        }
    }

    /// Whether a completion can be true.
    #[inline]
    fn check(&self, completion: &Completion) -> Result<u16, String> {
        let entries = self.rings.as_ref().map_or(0, Rings::entries);
        if completion.sq_id != self.link.queue || completion.sq_head >= entries {
            return Err(format!(
                "a completion on queue {} names submission queue {} and its entry {}",
                self.link.queue, completion.sq_id, completion.sq_head
            ));
        }
        self.trackers.find(completion.identifier).ok_or_else(|| {
            format!("a completion names command {:#06x}, which is not in flight", completion.identifier)
        })
    }

    #[inline]
    fn complete(&mut self, slot: u16, status: Status, done: &mut impl FnMut(u64, Outcome)) {
        if !status.is_success() && self.again(slot, status) {
            return;
        }
        let outcome = if status.is_success() { Outcome::Ok } else { Outcome::Failed(status.code()) };
        self.finish(slot, outcome, done);
    }

    /// A command has ended; perhaps its request too.
    #[inline]
    fn finish(&mut self, slot: u16, outcome: Outcome, done: &mut impl FnMut(u64, Outcome)) {
        let tracker = self.trackers.get(slot);
        if tracker.split == NONE {
            let token = tracker.token;
            self.trackers.release(slot);
            self.in_flight -= 1;
            done(token, outcome);
        } else {
            self.finish_piece(slot, outcome, done);
        }
    }

    /// After completions: split requests get the room, the device its entries back.
    #[inline]
    fn after(&mut self) {
        if self.splits.active != 0 {
            for index in self.splits.indices() {
                if self.splits.get(index).is_hungry() {
                    self.feed(index);
                }
            }
            self.kick();
        }
        if let Some(rings) = &mut self.rings {
            rings.report();
        }
        if self.sleep.connected && self.sleep.awake > BUSY {
            self.quieten();
        }
    }
}

impl Drop for Qpair {
    fn drop(&mut self) {
        let memory = (self.rings.take(), self.old.take(), self.staging.memory());
        self.link.inbox.send(Message::Close { queue: self.link.queue, memory: Box::new(memory) });
    }
}
