//! The loop of a reactor: run to completion, and to sleep when there is nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;

use nvlane_bdev::{Channel, Completion, ticks};
use nvlane_ring::{Ring, Segments, VringBase};

use super::channel::{Channels, Waiter};
use super::coalesce::{Coalescer, Coalescing};
use super::idle::{Idle, PollPolicy};
use super::mailbox::Mailbox;
use super::queue::{Core, QueueWork, Served, Turn, Visit};
use super::stats::Counters;
use crate::sys::{self, Epoll};

/// What the control thread asks of a reactor.
pub(super) enum Letter {
    Attach { place: u32, life: u16, work: Box<QueueWork> },
    Detach { place: u32 },
    Call { place: u32, call: Option<OwnedFd> },
    Err { place: u32, err: Option<OwnedFd> },
    Coalesce { place: u32, coalescing: Coalescing },
    Visit { place: u32, visit: Visit },
    Open { slot: u32, channel: Box<Channel> },
    Close { slot: u32 },
    Stop,
}

/// What a reactor hands back: dropping memory and devices is the control thread's business.
pub(super) enum Returned {
    Queue { place: u32, life: u16, base: VringBase, remains: Box<(Core, Box<dyn Served>)> },
    Channel { slot: u32, channel: Box<Channel> },
}

struct Seat {
    core: Core,
    device: Box<dyn Served>,
    detaching: bool,
}

pub(super) struct Reactor {
    index: usize,
    pub mailbox: Arc<Mailbox<Letter>>,
    pub wake: Arc<OwnedFd>,
    pub returned: Sender<(usize, Returned)>,
    pub report: Arc<OwnedFd>,
    pub counters: Arc<Counters>,
    epoll: Epoll,
    letters: Vec<Letter>,
    /// By place; a place is given out by the control thread.
    seats: Vec<Option<Box<Seat>>>,
    /// The places in use: what a turn goes through.
    places: Vec<u32>,
    detaching: usize,
    channels: Channels,
    segments: Segments,
    idle: Idle,
    tick_rate: u64,
    ready: Vec<u64>,
    stop: bool,
}

/// Epoll data: what woke the reactor does not matter, it looks at everything.
const WAKE: u64 = 0;
const KICK: u64 = 1;
const CHANNEL: u64 = 2;

/// How many empty turns pass before the clock is looked at.
const TURNS: u32 = 64;

impl Reactor {
    pub fn new(
        index: usize,
        mailbox: Arc<Mailbox<Letter>>,
        wake: Arc<OwnedFd>,
        returned: Sender<(usize, Returned)>,
        report: Arc<OwnedFd>,
        policy: PollPolicy,
    ) -> std::io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(wake.as_fd(), WAKE, sys::READABLE)?;
        let tick_rate = ticks::rate();
        Ok(Self {
            index,
            mailbox,
            wake,
            returned,
            report,
            counters: Arc::default(),
            epoll,
            letters: Vec::with_capacity(64),
            seats: Vec::new(),
            places: Vec::new(),
            detaching: 0,
            channels: Channels::default(),
            segments: Segments::new(),
            idle: Idle::new(policy, tick_rate, ticks::now()),
            tick_rate,
            ready: Vec::with_capacity(64),
            stop: false,
        })
    }

    /// Until a letter says to stop.
    pub fn run(mut self) {
        self.counters.thread.store(sys::thread_number(), Relaxed);
        let mut since = ticks::now();
        let mut busy = false;
        let mut empty_turns = 0_u32;
        loop {
            if self.turn() {
                empty_turns = 0;
                if !busy {
                    let now = ticks::now();
                    self.counters.idle.add(now.wrapping_sub(since));
                    self.idle.worked_after_gap(now);
                    (since, busy) = (now, true);
                }
                continue;
            }
            if busy {
                let now = ticks::now();
                self.counters.busy.add(now.wrapping_sub(since));
                self.idle.worked_until(now);
                (since, busy) = (now, false);
            }
            if self.stop {
                return;
            }
            std::hint::spin_loop();
            empty_turns += 1;
            if empty_turns % TURNS == 0 {
                let now = ticks::now();
                self.counters.idle.add(now.wrapping_sub(since));
                since = now;
                self.pay_calls(now);
                if self.idle.may_sleep(now) {
                    self.sleep();
                }
            }
        }
    }

    /// One look at everything. True: there was something.
    #[inline]
    pub fn turn(&mut self) -> bool {
        let mut worked = false;
        if self.mailbox.has_letters() {
            self.read_letters();
            worked = true;
        }
        if let Some(completions) = self.channels.poll() {
            worked |= !completions.is_empty();
            self.deliver(completions);
        }
        for index in 0..self.places.len() {
            let Some(seat) = self.seats[self.places[index] as usize].as_deref_mut() else { continue };
            let turn =
                Turn { core: &mut seat.core, channels: &mut self.channels, segments: &mut self.segments };
            let taken = seat.device.serve(turn);
            worked |= taken > 0;
            if seat.core.publish() {
                self.counters.calls.add(1);
            }
        }
        self.channels.kick();
        if self.detaching > 0 {
            self.let_go();
        }
        worked
    }

    fn deliver(&mut self, completions: Vec<Completion>) {
        for completion in &completions {
            let waiter = Waiter::from_token(completion.token);
            let Some(Some(seat)) = self.seats.get_mut(usize::from(waiter.queue)) else { continue };
            if seat.core.state.life == waiter.life {
                let turn =
                    Turn { core: &mut seat.core, channels: &mut self.channels, segments: &mut self.segments };
                seat.device.ended(turn, waiter.id, waiter.part, completion.status);
            }
        }
        self.channels.reuse(completions);
    }

    #[cold]
    fn read_letters(&mut self) {
        let mut letters = std::mem::take(&mut self.letters);
        self.mailbox.collect(&mut letters);
        for letter in letters.drain(..) {
            self.read(letter);
        }
        self.letters = letters;
    }

    fn seat(&mut self, place: u32) -> Option<&mut Seat> {
        self.seats.get_mut(place as usize)?.as_deref_mut()
    }

    fn read(&mut self, letter: Letter) {
        match letter {
            Letter::Attach { place, life, work } => self.attach(place, life, *work),
            Letter::Detach { place } => {
                if let Some(seat) = self.seat(place) {
                    seat.core.state.stopped = true;
                    seat.detaching = true;
                    self.detaching += 1;
                }
            }
            Letter::Call { place, call } => {
                if let Some(seat) = self.seat(place) {
                    seat.core.state.call = call;
                    // What completed before may have gone to the old descriptor: a call too many does no harm.
                    seat.core.state.call();
                }
            }
            Letter::Err { place, err } => {
                if let Some(seat) = self.seat(place) {
                    seat.core.state.err = err;
                }
            }
            Letter::Coalesce { place, coalescing } => {
                let tick_rate = self.tick_rate;
                if let Some(seat) = self.seat(place) {
                    if seat.core.state.coalescer.settle() {
                        seat.core.state.call();
                    }
                    seat.core.state.coalescer = Coalescer::new(coalescing, tick_rate);
                }
            }
            Letter::Visit { place, visit } => {
                if let Some(Some(seat)) = self.seats.get_mut(place as usize) {
                    let turn = Turn {
                        core: &mut seat.core,
                        channels: &mut self.channels,
                        segments: &mut self.segments,
                    };
                    seat.device.with(turn, visit);
                }
            }
            Letter::Open { slot, channel } => {
                if let Some(descriptor) = sys::wait_descriptor(&channel) {
                    let _ = self.epoll.add(descriptor, CHANNEL, sys::READABLE);
                }
                self.channels.install(slot, *channel);
            }
            Letter::Close { slot } => {
                if let Some(slot) = self.channels.get(slot) {
                    slot.closing = true;
                    self.detaching += 1;
                }
            }
            Letter::Stop => self.stop = true,
        }
    }

    fn attach(&mut self, place: u32, life: u16, work: QueueWork) {
        let index = place as usize;
        if self.seats.len() <= index {
            self.seats.resize_with(index + 1, || None);
        }
        let (mut core, device) = Core::new(work, place as u16, life, self.tick_rate);
        if let Some(kick) = &core.state.kick {
            // A descriptor that cannot be waited for (a file, say) leaves a queue that keeps its reactor awake.
            if self.epoll.add(kick.as_fd(), KICK, sys::RAISED).is_err() {
                core.state.kick = None;
            }
        }
        core.ring.suppress();
        // The guest may have waited for a call since before the connection: one too many does no harm.
        core.state.call();
        self.seats[index] = Some(Box::new(Seat { core, device, detaching: false }));
        self.places.push(place);
        self.counters.queues.set(self.places.len() as u64);
    }

    /// Hands back the queues and channels that are to leave and have nothing under way.
    #[cold]
    fn let_go(&mut self) {
        let leaving: Vec<u32> = self
            .places
            .iter()
            .copied()
            .filter(|&place| {
                self.seats[place as usize].as_ref().is_some_and(|s| s.detaching && s.core.is_drained())
            })
            .collect();
        for place in leaving {
            self.places.retain(|&other| other != place);
            let Some(seat) = self.seats[place as usize].take() else { continue };
            let Seat { mut core, device, .. } = *seat;
            if let Some(kick) = &core.state.kick {
                let _ = self.epoll.remove(kick.as_fd());
            }
            core.publish();
            if core.state.coalescer.settle() {
                core.state.call();
            }
            self.detaching -= 1;
            let base = core.ring.base();
            let life = core.state.life;
            self.give(Returned::Queue { place, life, base, remains: Box::new((core, device)) });
        }
        let mut returned = Vec::new();
        for (index, slot) in self.channels.slots.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|slot| slot.closing && slot.channel.in_flight() == 0) {
                if let Some(slot) = slot.take() {
                    if let Some(descriptor) = sys::wait_descriptor(&slot.channel) {
                        let _ = self.epoll.remove(descriptor);
                    }
                    self.detaching -= 1;
                    let channel = Box::new(slot.channel);
                    returned.push(Returned::Channel { slot: index as u32, channel });
                }
            }
        }
        returned.into_iter().for_each(|returned| self.give(returned));
        self.counters.queues.set(self.places.len() as u64);
    }

    /// To the control thread.
    fn give(&self, returned: Returned) {
        // It stops listening only when it ends, and this thread with it.
        let _ = self.returned.send((self.index, returned));
        sys::raise(self.report.as_fd());
    }

    /// Calls that were put off and are due.
    fn pay_calls(&mut self, now: u64) {
        for seat in self.seats.iter_mut().flatten() {
            if seat.core.state.coalescer.owes() && seat.core.state.coalescer.due(now) {
                seat.core.state.call();
            }
        }
    }

    /// Arms every notification, looks again, and sleeps until one comes.
    #[cold]
    fn sleep(&mut self) {
        if !self.arm() {
            self.disarm();
            return;
        }
        for seat in self.seats.iter_mut().flatten() {
            if seat.core.state.coalescer.settle() {
                seat.core.state.call();
            }
        }
        if self.mailbox.doze() {
            let mut ready = std::mem::take(&mut self.ready);
            self.counters.sleeps.add(1);
            let _ = self.epoll.wait(&mut ready, None);
            self.mailbox.awake();
            if ready.contains(&WAKE) {
                sys::lower(self.wake.as_fd());
            }
            self.ready = ready;
        }
        self.disarm();
    }

    /// Everything about a sleep but the sleep. True: it would have come.
    pub fn doze(&mut self) -> bool {
        let quiet = self.arm() && self.mailbox.doze();
        self.mailbox.awake();
        self.disarm();
        quiet
    }

    /// Asks everyone to make itself heard. False: something came in the meantime, or someone can only be polled.
    fn arm(&mut self) -> bool {
        let seats = &mut self.seats;
        self.places.iter().all(|&place| {
            seats[place as usize].as_deref_mut().is_none_or(|seat| {
                let Core { ring, state } = &mut seat.core;
                // What does not listen may find chains on its ring and sleep all the same.
                state.is_quiet()
                    && (state.stopped || !seat.device.listens() || (state.kick.is_some() && ring.arm()))
            })
        }) && self.channels.arm()
    }

    /// Back to polling: nobody needs to make itself heard.
    fn disarm(&mut self) {
        for seat in self.seats.iter_mut().flatten() {
            if !seat.core.state.stopped {
                seat.core.ring.suppress();
            }
        }
        self.channels.wake();
    }
}
