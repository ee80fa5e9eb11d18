//! `delay`: another bdev whose requests take longer, for tests of what waits (SPDK's vbdev_delay).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde_json::{Value, json};

use crate::stacked::Below;
use crate::{
    Backend, Base, Bdev, BdevError, Completion, Kind, Operation, Request, Status, Submitted, Uuid, ticks,
};

/// What is added to a request, in microseconds: to most the average, to one in a hundred the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    pub avg_read: u64,
    pub p99_read: u64,
    pub avg_write: u64,
    pub p99_write: u64,
}

/// Which latency `update` changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatencyKind {
    AvgRead = 0,
    P99Read = 1,
    AvgWrite = 2,
    P99Write = 3,
}

type Shared = Arc<[AtomicU64; 4]>;

pub struct Delay {
    base: Base,
    latencies: Shared,
    below: Below,
}

impl Delay {
    pub fn new(
        below: Arc<dyn Bdev>,
        name: &str,
        uuid: Uuid,
        latencies: Latencies,
    ) -> Result<Self, BdevError> {
        let below = Below::claim(below);
        let Latencies { avg_read, p99_read, avg_write, p99_write } = latencies;
        let latencies = Arc::new([avg_read, p99_read, avg_write, p99_write].map(AtomicU64::new));
        Ok(Self { base: below.base(name, uuid, "delay")?, latencies, below })
    }

    pub fn update(&self, kind: LatencyKind, microseconds: u64) {
        self.latencies[kind as usize].store(microseconds, Relaxed);
    }
}

impl Bdev for Delay {
    fn base(&self) -> &Base {
        &self.base
    }

    fn blocks(&self) -> u64 {
        self.below.bdev().blocks()
    }

    fn supports(&self, operation: Operation) -> bool {
        self.below.supports(operation)
    }

    fn backend(&self, reactor: usize) -> Result<Backend, BdevError> {
        let below = self.below.bdev().backend(reactor)?;
        Ok(Backend::Delay(Box::new(DelayChannel::new(below, self.latencies.clone())?)))
    }

    fn driver_specific(&self) -> Value {
        let [avg_read, p99_read, avg_write, p99_write] =
            [0, 1, 2, 3].map(|kind| self.latencies[kind].load(Relaxed));
        json!({"delay": {
            "name": self.info().name,
            "base_bdev_name": self.below.name(),
            "avg_read_latency": avg_read,
            "p99_read_latency": p99_read,
            "avg_write_latency": avg_write,
            "p99_write_latency": p99_write,
        }})
    }
}

pub struct DelayChannel {
    below: Backend,
    latencies: Shared,
    /// What has ended below, by the time at which it may end here; the number keeps equal times in order.
    held: BinaryHeap<Reverse<(u64, u64, u64, StatusRank)>>,
    count: u64,
    kinds: KindOfToken,
    below_pending: usize,
    ended: Vec<Completion>,
    timer: OwnedFd,
    /// Readable when the timer or the device below is.
    either: OwnedFd,
}

/// A status that can lie in a heap.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct StatusRank(u8);

const STATUSES: [Status; 8] = [
    Status::Ok,
    Status::IoError,
    Status::Unsupported,
    Status::OutOfRange,
    Status::ReadOnly,
    Status::NoSpace,
    Status::Gone,
    Status::Aborted,
];

impl StatusRank {
    fn of(status: Status) -> Self {
        Self(STATUSES.iter().position(|&one| one == status).unwrap_or(1) as u8)
    }
}

/// Which kind of request a token stands for while the device below has it. Tokens are small numbers (see `pending`).
#[derive(Default)]
struct KindOfToken(Vec<Kind>);

impl KindOfToken {
    fn set(&mut self, token: u64, kind: Kind) {
        let index = token as usize;
        if index >= self.0.len() {
            self.0.resize(index + 1, Kind::Flush);
        }
        self.0[index] = kind;
    }

    fn get(&self, token: u64) -> Kind {
        self.0[token as usize]
    }
}

impl DelayChannel {
    fn new(below: Backend, latencies: Shared) -> Result<Self, BdevError> {
        let failed = |errno: rustix::io::Errno| BdevError::io("a timer for a delay bdev", &errno.into());
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map_err(failed)?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        epoll::add(&either, &timer, epoll::EventData::new_u64(0), epoll::EventFlags::IN).map_err(failed)?;
        if let Some(descriptor) = below.wait_descriptor() {
            crate::file::watch(&either, descriptor).map_err(failed)?;
        }
        Ok(Self {
            below,
            latencies,
            held: BinaryHeap::with_capacity(1024),
            count: 0,
            kinds: KindOfToken::default(),
            below_pending: 0,
            ended: Vec::with_capacity(256),
            timer,
            either,
        })
    }

    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Submitted {
        let kind = Kind::of(request.operation);
        match self.below.submit(request) {
            Submitted::Busy => return Submitted::Busy,
            Submitted::Done(status) => self.hold(request.token, kind, status),
            Submitted::Pending => {
                self.kinds.set(request.token, kind);
                self.below_pending += 1;
            }
        }
        Submitted::Pending
    }

    fn hold(&mut self, token: u64, kind: Kind, status: Status) {
        self.count += 1;
        let slow = usize::from(self.count % 100 == 0);
        let latency = match kind {
            Kind::Read => self.latencies[slow].load(Relaxed),
            Kind::Write => self.latencies[2 + slow].load(Relaxed),
            _ => 0,
        };
        let due = ticks::now() + ticks::of(Duration::from_micros(latency));
        self.held.push(Reverse((due, self.count, token, StatusRank::of(status))));
    }

    pub(crate) fn kick(&mut self) {
        self.below.kick();
    }

    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) {
        if self.below_pending != 0 {
            let mut ended = std::mem::take(&mut self.ended);
            self.below.poll(&mut ended);
            self.below_pending -= ended.len();
            for completion in ended.drain(..) {
                self.hold(completion.token, self.kinds.get(completion.token), completion.status);
            }
            self.ended = ended;
        }
        let now = ticks::now();
        while let Some(&Reverse((due, _, token, status))) = self.held.peek() {
            if due > now {
                break;
            }
            self.held.pop();
            completions.push(Completion { token, status: STATUSES[status.0 as usize] });
        }
    }

    pub(crate) fn arm(&mut self) -> bool {
        if self.below_pending == 0 {
            self.below.settle();
        } else if !self.below.arm() {
            return false;
        }
        let Some(&Reverse((due, ..))) = self.held.peek() else { return true };
        let left = due.saturating_sub(ticks::now());
        if left == 0 {
            return false;
        }
        let nanoseconds = (u128::from(left) * 1_000_000_000 / u128::from(ticks::rate()) + 1) as i64;
        let it_value = Timespec { tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once).is_ok()
    }

    /// The timer is stopped, which also takes back that it has run out (timerfd_settime(2)).
    pub(crate) fn settle(&mut self) {
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let never = Itimerspec { it_interval: zero, it_value: zero };
        let _ = rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &never); // cannot fail
        self.below.settle();
    }

    pub(crate) fn wait_descriptor(&self) -> RawFd {
        self.either.as_raw_fd()
    }
}
