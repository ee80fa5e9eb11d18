//! Reactors: pinned threads, each with its own queues and its own channels to the block devices, sharing nothing.
//!
//! [`Reactors`] is the control thread's side. What it asks goes through a [`mailbox`] and is done in order; what a
//! reactor gives back is fetched by [`Reactors::take_back`] when [`Reactors::report`] becomes readable. Nobody waits for
//! anybody.

mod channel;
mod coalesce;
mod idle;
mod log;
mod mailbox;
mod queue;
mod run;
mod stats;

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use nvlane_bdev::{Bdev, BdevError, ticks};
use nvlane_ring::VringBase;

pub use channel::{ChannelId, Io};
pub use coalesce::Coalescing;
pub use idle::PollPolicy;
pub use log::Log;
pub use queue::{QueueWork, Served, Turn, Visit};
pub use stats::ReactorStats;

use mailbox::Mailbox;
use run::{Letter, Reactor, Returned};
use stats::Counters;

use crate::sys;

/// A queue that is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueId {
    reactor: u32,
    place: u32,
    life: u16,
}

impl QueueId {
    pub fn reactor(self) -> usize {
        self.reactor as usize
    }
}

/// A queue that is the caller's again: all its requests have ended and are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    pub queue: QueueId,
    /// Where its next life begins.
    pub base: VringBase,
}

/// The ticks of all statistics in a second.
pub fn tick_rate() -> u64 {
    ticks::rate()
}

/// The control thread's side of all reactors; clones speak to the same ones.
#[derive(Clone)]
pub struct Reactors(Arc<Inner>);

struct Inner {
    handles: Vec<Handle>,
    returned: Mutex<Receiver<(usize, Returned)>>,
    report: Arc<OwnedFd>,
}

/// See [`Reactors::by_hand`].
pub struct ByHand(Reactor);

impl ByHand {
    /// One look at everything. True: there was something.
    #[inline]
    pub fn turn(&mut self) -> bool {
        self.0.turn()
    }

    /// What the reactor does before it sleeps, without the sleep. True: it would have slept.
    pub fn doze(&mut self) -> bool {
        self.0.doze()
    }
}

struct Handle {
    cpu: usize,
    mailbox: Arc<Mailbox<Letter>>,
    wake: Arc<OwnedFd>,
    counters: Arc<Counters>,
    desk: Mutex<Desk>,
    thread: Option<JoinHandle<()>>,
}

/// What the control thread remembers of a reactor.
#[derive(Default)]
struct Desk {
    /// The life of each place for a queue, and whether it is taken.
    places: Vec<(u16, bool)>,
    channels: Vec<Option<OpenChannel>>,
    /// By the bdev's address: it is the same one, whatever its name.
    by_bdev: HashMap<usize, u32>,
}

struct OpenChannel {
    bdev: Arc<dyn Bdev>,
    users: usize,
}

/// The same without keeping the threads: what lives on a reactor must not be what keeps it running.
#[derive(Clone)]
pub struct WeakReactors(Weak<Inner>);

impl WeakReactors {
    pub fn upgrade(&self) -> Option<Reactors> {
        self.0.upgrade().map(Reactors)
    }
}

impl Reactors {
    pub fn downgrade(&self) -> WeakReactors {
        WeakReactors(Arc::downgrade(&self.0))
    }

    /// Starts one thread a processor.
    ///
    /// # Errors
    /// When a processor is not ours to use or a thread cannot be made.
    pub fn start(cpus: &[usize], policy: PollPolicy) -> io::Result<Self> {
        let (returning, returned) = channel();
        let report = Arc::new(sys::event()?);
        let handles = cpus
            .iter()
            .enumerate()
            .map(|(index, &cpu)| Handle::start(index, cpu, returning.clone(), report.clone(), policy))
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self(Arc::new(Inner { handles, returned: Mutex::new(returned), report })))
    }

    /// One reactor that takes a turn only when it is told to, on the caller's thread: for tests and measurements that
    /// must be the same each time.
    ///
    /// # Errors
    /// When descriptors have run out.
    pub fn by_hand() -> io::Result<(Self, ByHand)> {
        let (returning, returned) = channel();
        let report = Arc::new(sys::event()?);
        let (handle, reactor) = Handle::prepare(0, 0, returning, report.clone(), PollPolicy::Always)?;
        let inner = Inner { handles: vec![handle], returned: Mutex::new(returned), report };
        Ok((Self(Arc::new(inner)), ByHand(reactor)))
    }

    pub fn len(&self) -> usize {
        self.0.handles.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.handles.is_empty()
    }

    pub fn cpu(&self, reactor: usize) -> usize {
        self.0.handles[reactor].cpu
    }

    /// How many queues a reactor has.
    pub fn load(&self, reactor: usize) -> usize {
        self.0.handles[reactor].desk().places.iter().filter(|(_, taken)| *taken).count()
    }

    /// The channel of a reactor to a bdev. All front ends of the reactor share it; each closes it once.
    ///
    /// # Errors
    /// What the bdev says.
    pub fn open_channel(&self, reactor: usize, bdev: &Arc<dyn Bdev>) -> Result<ChannelId, BdevError> {
        let handle = &self.0.handles[reactor];
        let mut desk = handle.desk();
        let key = address(bdev);
        let id = |slot| ChannelId { reactor: reactor as u32, slot };
        if let Some(&slot) = desk.by_bdev.get(&key) {
            if let Some(open) = &mut desk.channels[slot as usize] {
                open.users += 1;
                return Ok(id(slot));
            }
        }
        let channel = bdev.open(reactor)?;
        let slot = desk.channels.iter().position(Option::is_none).unwrap_or(desk.channels.len());
        if slot == desk.channels.len() {
            desk.channels.push(None);
        }
        desk.channels[slot] = Some(OpenChannel { bdev: bdev.clone(), users: 1 });
        desk.by_bdev.insert(key, slot as u32);
        handle.post(Letter::Open { slot: slot as u32, channel: Box::new(channel) });
        Ok(id(slot as u32))
    }

    /// One user less; with the last, what is under way ends and the channel goes.
    pub fn close_channel(&self, id: ChannelId) {
        let handle = &self.0.handles[id.reactor as usize];
        let mut desk = handle.desk();
        let Some(Some(open)) = desk.channels.get_mut(id.slot as usize) else { return };
        open.users = open.users.saturating_sub(1);
        if open.users == 0 {
            let key = address(&open.bdev);
            desk.by_bdev.remove(&key);
            handle.post(Letter::Close { slot: id.slot });
        }
    }

    /// Hands a queue to a reactor, which serves it from now on. Never waits.
    pub fn attach(&self, reactor: usize, work: QueueWork) -> QueueId {
        let handle = &self.0.handles[reactor];
        let mut desk = handle.desk();
        let place = desk.places.iter().position(|(_, taken)| !taken).unwrap_or(desk.places.len());
        if place == desk.places.len() {
            desk.places.push((0, false));
        }
        let life = desk.places[place].0.wrapping_add(1);
        desk.places[place] = (life, true);
        let place = place as u32;
        handle.post(Letter::Attach { place, life, work: Box::new(work) });
        QueueId { reactor: reactor as u32, place, life }
    }

    /// Asks for a queue: nothing more is taken off it, and it comes back by [`Reactors::take_back`] when all its requests
    /// have ended.
    pub fn detach(&self, queue: QueueId) {
        self.post(queue, Letter::Detach { place: queue.place });
    }

    /// Becomes readable when reactors have given something back.
    pub fn report(&self) -> BorrowedFd<'_> {
        self.0.report.as_fd()
    }

    /// The queues that have come back. Channels that were closed, and what went with the queues, are dropped here.
    pub fn take_back(&self) -> Vec<Detached> {
        sys::lower(self.report());
        let returned = self.0.returned.lock().unwrap_or_else(PoisonError::into_inner);
        returned
            .try_iter()
            .filter_map(|(reactor, returned)| self.0.handles[reactor].file(reactor, returned))
            .collect()
    }

    pub fn set_call(&self, queue: QueueId, call: Option<OwnedFd>) {
        self.post(queue, Letter::Call { place: queue.place, call });
    }

    pub fn set_err(&self, queue: QueueId, err: Option<OwnedFd>) {
        self.post(queue, Letter::Err { place: queue.place, err });
    }

    pub fn set_coalescing(&self, queue: QueueId, coalescing: Coalescing) {
        self.post(queue, Letter::Coalesce { place: queue.place, coalescing });
    }

    /// Runs `visit` on the reactor with the queue's front end, in order with everything else that is asked of it.
    pub fn with_device(&self, queue: QueueId, visit: Visit) {
        self.post(queue, Letter::Visit { place: queue.place, visit });
    }

    fn post(&self, queue: QueueId, letter: Letter) {
        self.0.handles[queue.reactor as usize].post(letter);
    }

    pub fn stats(&self) -> Vec<ReactorStats> {
        self.0.handles.iter().map(Handle::stats).collect()
    }
}

impl Handle {
    fn start(
        index: usize,
        cpu: usize,
        returning: Sender<(usize, Returned)>,
        report: Arc<OwnedFd>,
        policy: PollPolicy,
    ) -> io::Result<Self> {
        let (mut handle, reactor) = Self::prepare(index, cpu, returning, report, policy)?;
        let (started, start) = channel();
        handle.thread =
            Some(std::thread::Builder::new().name(format!("reactor_{cpu}")).spawn(move || {
                let pinned = sys::pin(cpu);
                let go = pinned.is_ok();
                let _ = started.send(pinned);
                if go {
                    reactor.run();
                }
            })?);
        let gone = || io::Error::other("the reactor's thread ended before it began");
        start.recv().map_err(|_| gone())?.map_err(|error| {
            io::Error::new(error.kind(), format!("processor {cpu} cannot be used for a reactor: {error}"))
        })?;
        Ok(handle)
    }

    fn prepare(
        index: usize,
        cpu: usize,
        returning: Sender<(usize, Returned)>,
        report: Arc<OwnedFd>,
        policy: PollPolicy,
    ) -> io::Result<(Self, Reactor)> {
        let mailbox = Arc::new(Mailbox::new());
        let wake = Arc::new(sys::event()?);
        let reactor = Reactor::new(index, mailbox.clone(), wake.clone(), returning, report, policy)?;
        let counters = reactor.counters.clone();
        Ok((Self { cpu, mailbox, wake, counters, desk: Mutex::default(), thread: None }, reactor))
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn post(&self, letter: Letter) {
        if self.mailbox.post(letter) {
            sys::raise(self.wake.as_fd());
        }
    }

    fn file(&self, reactor: usize, returned: Returned) -> Option<Detached> {
        let mut desk = self.desk();
        match returned {
            Returned::Queue { place, life, base, remains } => {
                desk.places[place as usize].1 = false;
                drop(desk);
                drop(remains);
                Some(Detached { queue: QueueId { reactor: reactor as u32, place, life }, base })
            }
            Returned::Channel { slot, channel } => {
                let bdev = desk.channels[slot as usize].take();
                drop(desk);
                drop(channel);
                drop(bdev);
                None
            }
        }
    }

    fn stats(&self) -> ReactorStats {
        let Counters { thread, busy, idle, sleeps, calls, queues } = &*self.counters;
        ReactorStats {
            cpu: self.cpu,
            thread: thread.load(Relaxed),
            busy: busy.get(),
            idle: idle.get(),
            asleep: self.mailbox.is_asleep(),
            sleeps: sleeps.get(),
            calls: calls.get(),
            queues: queues.get(),
        }
    }
}

fn address(bdev: &Arc<dyn Bdev>) -> usize {
    Arc::as_ptr(bdev).cast::<()>() as usize
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.post(Letter::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
