//! The way of one reactor to one bdev.
//!
//! A turn of the reactor submits any number of requests, then calls [`Channel::kick`] once, then [`Channel::poll`].
//! Requests to memory are done within `submit`; the others come back from `poll`. Time is taken twice a turn and not
//! twice a request: the requests that were done within one turn share its time evenly.

use std::os::fd::RawFd;
use std::sync::Arc;

use crate::delay::DelayChannel;
use crate::error::ErrorChannel;
use crate::file::{DirectChannel, ThreadChannel, UringChannel};
use crate::malloc::MallocChannel;
use crate::nvme::NvmeChannel;
use crate::pending::Pending;
use crate::stats::Ledger;
use crate::{ChannelStats, Completion, Kind, Operation, Qos, Request, Status, Submitted, ticks};

/// What a driver does for a channel, one variant a driver: a call costs a jump, not a table.
pub enum Backend {
    Null,
    Malloc(MallocChannel),
    Direct(Box<DirectChannel>),
    Uring(Box<UringChannel>),
    Threads(Box<ThreadChannel>),
    Nvme(Box<NvmeChannel>),
    Error(Box<ErrorChannel>),
    Delay(Box<DelayChannel>),
}

/// Requests done within the turn so far, by kind.
#[derive(Default)]
struct Turn {
    began: u64,
    total: u64,
    kinds: [(u64, u64); Kind::ALL.len()],
}

pub struct Channel {
    backend: Backend,
    turn: Turn,
    pending: Pending,
    stats: Arc<ChannelStats>,
    ledger: Arc<Ledger>,
    qos: Arc<Qos>,
    /// A limit has refused a request since the last poll: only the clock will end that.
    refused: bool,
}

impl Channel {
    pub(crate) fn new(backend: Backend, ledger: Arc<Ledger>, reactor: usize, qos: Arc<Qos>) -> Self {
        let capacity = if backend.is_memory() { 0 } else { 1024 };
        let stats = ledger.open(reactor);
        let pending = Pending::with_capacity(capacity);
        Self { backend, turn: Turn::default(), pending, stats, ledger, qos, refused: false }
    }

    /// Takes a request, or refuses it (`Busy`) with nothing done.
    #[inline]
    pub fn submit(&mut self, request: &Request<'_>) -> Submitted {
        if self.qos.active() && !self.qos.take(request.operation, request.length) {
            self.refused = true;
            return Submitted::Busy;
        }
        if self.turn.began == 0 {
            self.turn.began = ticks::now().max(1);
        }
        let status = match &mut self.backend {
            Backend::Null => Status::Ok,
            Backend::Malloc(malloc) => malloc.submit(request),
            _ => return self.submit_to_device(request),
        };
        self.done(Kind::of(request.operation), request.length, status);
        Submitted::Done(status)
    }

    fn submit_to_device(&mut self, request: &Request<'_>) -> Submitted {
        let place = self.pending.insert(request, self.turn.began);
        let submitted = self.backend.submit(&Request { token: place, ..*request });
        match submitted {
            Submitted::Pending => return Submitted::Pending,
            Submitted::Done(status) => self.done(Kind::of(request.operation), request.length, status),
            Submitted::Busy if self.qos.active() => self.qos.give_back(request.operation, request.length),
            Submitted::Busy => {}
        }
        self.pending.remove(place);
        submitted
    }

    /// Hands what was submitted to the device: a doorbell, an `io_uring_enter`, or nothing.
    #[inline]
    pub fn kick(&mut self) {
        if self.turn.total != 0 {
            self.count_turn();
        }
        self.turn.began = 0;
        self.backend.kick();
    }

    /// Appends what has ended and returns how many.
    #[inline]
    pub fn poll(&mut self, completions: &mut Vec<Completion>) -> usize {
        self.refused = false;
        if self.pending.len() == 0 {
            return 0;
        }
        let known = completions.len();
        self.backend.poll(completions);
        self.count_ended(&mut completions[known..])
    }

    /// Gives each completion its own token back, and counts it.
    fn count_ended(&mut self, ended: &mut [Completion]) -> usize {
        if ended.is_empty() {
            return 0;
        }
        self.stats.reset_if_asked();
        let now = ticks::now();
        for completion in ended.iter_mut() {
            let entry = self.pending.remove(completion.token);
            completion.token = entry.token;
            self.stats.finished(entry.kind, 1, entry.length, now.saturating_sub(entry.began));
            if completion.status != Status::Ok {
                self.stats.failed(completion.status);
            }
        }
        ended.len()
    }

    /// How many requests are under way.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Becomes readable when a request ends after [`Channel::arm`] was called. `None`: the device has to be polled
    /// while requests are under way, or none ever is.
    pub fn wait_descriptor(&self) -> Option<RawFd> {
        self.backend.wait_descriptor()
    }

    /// Before the reactor sleeps: from now on a request that ends makes the descriptor readable, until the next `poll`.
    /// `false`: do not sleep (something has ended already, a limit has refused a request, or the device has to be
    /// polled).
    pub fn arm(&mut self) -> bool {
        if self.pending.len() == 0 {
            self.backend.settle();
            return !self.refused;
        }
        !self.refused && self.backend.arm()
    }

    /// Whether [`Channel::prefetch`] does anything.
    #[inline]
    pub fn prefetches(&self) -> bool {
        matches!(self.backend, Backend::Malloc(_))
    }

    /// Brings what a later request will touch into the cache; costs nothing where that makes no sense.
    #[inline]
    pub fn prefetch(&self, operation: Operation, offset: u64, length: u64) {
        if let Backend::Malloc(malloc) = &self.backend {
            malloc.prefetch(operation, offset, length);
        }
    }

    /// Reads and writes are copies that are made within `submit`: their length is their time.
    pub fn copies(&self) -> bool {
        matches!(self.backend, Backend::Malloc(_))
    }

    pub fn stats(&self) -> &Arc<ChannelStats> {
        &self.stats
    }

    #[inline(always)]
    fn done(&mut self, kind: Kind, length: u64, status: Status) {
        if status != Status::Ok {
            self.stats.failed(status);
        }
        let (count, bytes) = &mut self.turn.kinds[kind as usize];
        *count += 1;
        *bytes += length;
        self.turn.total += 1;
    }

    fn count_turn(&mut self) {
        self.stats.reset_if_asked();
        let latency = ticks::now().saturating_sub(self.turn.began) / self.turn.total;
        for kind in Kind::ALL {
            let (count, bytes) = self.turn.kinds[kind as usize];
            if count != 0 {
                self.stats.finished(kind, count, bytes, latency);
            }
        }
        self.turn.total = 0;
        self.turn.kinds = Default::default();
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.kick();
        self.ledger.close(&self.stats);
    }
}

/// What channels of devices ask of each other: `error` and `delay` stand on another one.
impl Backend {
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Submitted {
        match self {
            Backend::Null => Submitted::Done(Status::Ok),
            Backend::Malloc(malloc) => Submitted::Done(malloc.submit(request)),
            Backend::Direct(direct) => Submitted::Done(direct.submit(request)),
            Backend::Uring(uring) => uring.submit(request),
            Backend::Threads(threads) => threads.submit(request),
            Backend::Nvme(nvme) => nvme.submit(request),
            Backend::Error(error) => error.submit(request),
            Backend::Delay(delay) => delay.submit(request),
        }
    }

    #[inline]
    pub(crate) fn kick(&mut self) {
        match self {
            Backend::Uring(uring) => uring.kick(),
            Backend::Nvme(nvme) => nvme.kick(),
            Backend::Error(error) => error.kick(),
            Backend::Delay(delay) => delay.kick(),
            Backend::Null | Backend::Malloc(_) | Backend::Direct(_) | Backend::Threads(_) => {}
        }
    }

    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) {
        match self {
            Backend::Null | Backend::Malloc(_) | Backend::Direct(_) => {}
            Backend::Uring(uring) => uring.poll(completions),
            Backend::Threads(threads) => threads.poll(completions),
            Backend::Nvme(nvme) => nvme.poll(completions),
            Backend::Error(error) => error.poll(completions),
            Backend::Delay(delay) => delay.poll(completions),
        }
    }

    pub(crate) fn arm(&mut self) -> bool {
        match self {
            Backend::Null | Backend::Malloc(_) | Backend::Direct(_) => true,
            Backend::Uring(uring) => uring.arm(),
            Backend::Threads(threads) => threads.arm(),
            Backend::Nvme(nvme) => nvme.arm(),
            Backend::Error(error) => error.arm(),
            Backend::Delay(delay) => delay.arm(),
        }
    }

    /// Nothing is under way: a signal that came late must not wake a reactor that waits for something else.
    pub(crate) fn settle(&mut self) {
        match self {
            Backend::Null | Backend::Malloc(_) | Backend::Direct(_) => {}
            Backend::Uring(uring) => uring.settle(),
            Backend::Threads(threads) => threads.settle(),
            Backend::Nvme(nvme) => nvme.settle(),
            Backend::Error(error) => error.settle(),
            Backend::Delay(delay) => delay.settle(),
        }
    }

    pub(crate) fn wait_descriptor(&self) -> Option<RawFd> {
        match self {
            Backend::Null | Backend::Malloc(_) | Backend::Direct(_) => None,
            Backend::Uring(uring) => Some(uring.wait_descriptor()),
            Backend::Threads(threads) => Some(threads.wait_descriptor()),
            Backend::Nvme(nvme) => Some(nvme.wait_descriptor()),
            Backend::Error(error) => error.wait_descriptor(),
            Backend::Delay(delay) => Some(delay.wait_descriptor()),
        }
    }

    /// Every request is done within `submit`.
    #[inline(always)]
    fn is_memory(&self) -> bool {
        matches!(self, Backend::Null | Backend::Malloc(_) | Backend::Direct(_))
    }
}
