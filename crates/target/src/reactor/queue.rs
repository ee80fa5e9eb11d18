//! One queue of a guest on its reactor.

use std::any::Any;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use nvlane_bdev::{Status, ticks};
use nvlane_ring::{Chain, Queue, Ring, RingError, Segments};

use super::channel::{Channels, Io};
use super::coalesce::{Coalescer, Coalescing};
use super::log::Log;
use crate::device::{Device, Step};
use crate::sys;

/// How many requests of one queue are taken before the next queue has its turn.
pub(super) const QUANTUM: usize = 32;

/// After so many copied bytes the guest sees what is done, in the middle of a turn: it works on that while the next
/// copies are made.
const SHOW: u64 = 4096;

/// A queue to be served: what [`super::Reactors::attach`] takes.
pub struct QueueWork {
    pub ring: Queue,
    pub device: Box<dyn Served>,
    /// Readable: the guest says that there is something. Without one the reactor keeps polling.
    pub kick: Option<OwnedFd>,
    pub call: Option<OwnedFd>,
    pub err: Option<OwnedFd>,
    pub coalescing: Coalescing,
    pub log: Option<Log>,
}

/// A chain that a block device had no room for.
struct Held {
    chain: Chain,
    segments: Segments,
}

/// A queue but for its front end: the ring and what goes with it.
pub(super) struct Core {
    pub ring: Queue,
    pub state: State,
}

/// What a queue knows besides its ring.
pub(super) struct State {
    pub number: u16,
    pub life: u16,
    pub kick: Option<OwnedFd>,
    pub call: Option<OwnedFd>,
    pub err: Option<OwnedFd>,
    pub coalescer: Coalescer,
    log: Option<Log>,
    /// The chains that are under way, by id.
    pending: Box<[Option<Chain>]>,
    in_flight: u32,
    held: VecDeque<Held>,
    /// Chains that go on when there is room, by id.
    again: VecDeque<u16>,
    /// Completed since the guest was last called, for the coalescer.
    completed: u32,
    /// No more is taken off the ring: it is broken, or the queue is being detached.
    pub stopped: bool,
}

impl Core {
    pub fn new(work: QueueWork, number: u16, life: u16, tick_rate: u64) -> (Self, Box<dyn Served>) {
        let QueueWork { ring, device, kick, call, err, coalescing, log } = work;
        let state = State {
            number,
            life,
            kick,
            call,
            err,
            coalescer: Coalescer::new(coalescing, tick_rate),
            log,
            pending: vec![None; usize::from(ring.size())].into_boxed_slice(),
            in_flight: 0,
            held: VecDeque::new(),
            again: VecDeque::new(),
            completed: 0,
            stopped: false,
        };
        (Self { ring, state }, device)
    }

    /// Shows the guest what has completed and calls it if it wants that. In every turn: the ring decides about a call in
    /// the first turn after the last completion (see [`Ring::publish`]).
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.ring.publish() && self.state.call_or_wait()
    }

    /// The queue may leave its reactor: nothing of the guest's is under way or owed.
    pub fn is_drained(&self) -> bool {
        self.state.in_flight == 0 && self.state.is_quiet()
    }
}

impl State {
    fn io<'a>(&'a self, channels: &'a mut Channels) -> Io<'a> {
        Io { channels, log: self.log.as_ref(), queue: self.number, life: self.life }
    }

    /// What became of a chain that was shown for the first time, or again after `Busy`.
    #[inline(always)]
    fn began<R: Ring>(&mut self, ring: &mut R, chain: Chain, step: Step) {
        match step {
            Step::Done { written } => {
                ring.complete(chain, written);
                self.completed += 1;
            }
            Step::Pending => self.keep(chain),
            Step::Again => {
                self.again.push_back(chain.id);
                self.keep(chain);
            }
            Step::Busy => unreachable!("a busy chain is held by who asked"),
        }
    }

    #[inline]
    fn keep(&mut self, chain: Chain) {
        self.pending[usize::from(chain.id)] = Some(chain);
        self.in_flight += 1;
    }

    /// A chain that was kept has come further.
    #[inline]
    fn went_on(&mut self, ring: &mut Queue, id: u16, step: Step) {
        match step {
            Step::Done { written } => {
                if let Some(chain) = self.pending.get_mut(usize::from(id)).and_then(Option::take) {
                    self.in_flight -= 1;
                    ring.complete(chain, written);
                    self.completed += 1;
                }
            }
            Step::Again => self.again.push_back(id),
            Step::Pending => {}
            Step::Busy => unreachable!("a chain that was kept is shown to nobody again"),
        }
    }

    /// Nothing waits for room.
    pub fn is_quiet(&self) -> bool {
        self.held.is_empty() && self.again.is_empty()
    }

    /// The guest wants to be called. True: it was.
    #[cold]
    fn call_or_wait(&mut self) -> bool {
        let completed = std::mem::take(&mut self.completed);
        let now = self.coalescer.is_off() || self.coalescer.wanted(u64::from(completed), ticks::now());
        if now {
            self.call();
        }
        now
    }

    pub fn call(&self) {
        if let Some(call) = &self.call {
            sys::raise(call.as_fd());
        }
    }

    /// The ring is not to be trusted any more: this queue stops, its operations under way end, the others go on.
    #[cold]
    fn broke(&mut self, error: &RingError) {
        self.stopped = true;
        log::warn!("queue {} is stopped: {error}", self.number);
        if let Some(err) = &self.err {
            sys::raise(err.as_fd());
        }
    }
}

/// A [`Device`] with the loop around it compiled for it: one indirect call a queue and turn instead of one a request.
pub trait Served: Send {
    #[doc(hidden)]
    fn serve(&mut self, turn: Turn<'_>) -> usize;
    #[doc(hidden)]
    fn ended(&mut self, turn: Turn<'_>, id: u16, part: u16, status: Status);
    /// Whether a kick of the guest would mean anything to the front end now.
    #[doc(hidden)]
    fn listens(&self) -> bool;
    #[doc(hidden)]
    fn with(&mut self, turn: Turn<'_>, visit: Visit);
}

/// What [`super::Reactors::with_device`] runs on the reactor.
pub type Visit = Box<dyn FnOnce(&mut dyn Any, &mut Io<'_>) + Send>;

/// A queue's turn.
pub struct Turn<'a> {
    pub(super) core: &'a mut Core,
    pub(super) channels: &'a mut Channels,
    pub(super) segments: &'a mut Segments,
}

impl<D: Device> Served for D {
    fn serve(&mut self, turn: Turn<'_>) -> usize {
        let Turn { core: Core { ring, state }, channels, segments } = turn;
        let waiting = !state.is_quiet() && !retry(self, ring, state, channels);
        if waiting && self.keeps_order() || state.stopped {
            return 0;
        }
        match ring {
            Queue::Split(ring) => take(self, ring, state, channels, segments),
            Queue::Packed(ring) => take(self, ring, state, channels, segments),
        }
    }

    fn ended(&mut self, turn: Turn<'_>, id: u16, part: u16, status: Status) {
        let Turn { core: Core { ring, state }, channels, .. } = turn;
        let step = Device::ended(self, id, part, status, &mut state.io(channels));
        state.went_on(ring, id, step);
    }

    fn listens(&self) -> bool {
        self.wants()
    }

    fn with(&mut self, turn: Turn<'_>, visit: Visit) {
        let Turn { core, channels, .. } = turn;
        visit(self.as_any(), &mut core.state.io(channels));
    }
}

/// The path: chains off the ring, through the front end, most of them back on the ring at once.
#[inline(always)]
fn take<D: Device, R: Ring>(
    device: &mut D,
    ring: &mut R,
    state: &mut State,
    channels: &mut Channels,
    segments: &mut Segments,
) -> usize {
    let mut taken = 0;
    let looks_ahead = device.looks_ahead(&mut state.io(channels));
    while taken < QUANTUM && device.wants() {
        let chain = match ring.pop(segments) {
            Ok(Some(chain)) => chain,
            Ok(None) => break,
            Err(error) => {
                state.broke(&error);
                break;
            }
        };
        taken += 1;
        if looks_ahead {
            if let Some(header) = ring.ahead() {
                device.foresee(&header, &mut state.io(channels));
            }
        }
        let step = device.request(&chain, segments, &mut state.io(channels));
        if step == Step::Busy {
            state.held.push_back(Held { chain, segments: std::mem::take(segments) });
            break;
        }
        state.began(ring, chain, step);
        if channels.copied >= SHOW {
            channels.copied = 0;
            ring.show();
        }
    }
    taken
}

/// Goes on with what had to wait, oldest first. True: nothing waits any more.
#[cold]
fn retry<D: Device>(device: &mut D, ring: &mut Queue, state: &mut State, channels: &mut Channels) -> bool {
    for _ in 0..state.again.len() {
        let Some(id) = state.again.pop_front() else { break };
        let step = device.resume(id, &mut state.io(channels));
        state.went_on(ring, id, step);
    }
    while let Some(mut held) = state.held.pop_front() {
        let step = device.request(&held.chain, &mut held.segments, &mut state.io(channels));
        if step == Step::Busy {
            state.held.push_front(held);
            break;
        }
        state.began(ring, held.chain, step);
    }
    state.is_quiet()
}
