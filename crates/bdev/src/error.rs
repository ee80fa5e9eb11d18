//! `error`: another bdev whose requests fail when asked to, for tests of what follows (SPDK's vbdev_error).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nvlane_memory::{Segment, copy};
use serde_json::{Value, json};

use crate::stacked::Below;
use crate::{Backend, Base, Bdev, BdevError, Completion, Kind, Operation, Request, Status, Submitted, Uuid};

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Failure,
    /// It does not end, until `resume`.
    Pending,
    /// The device has no room, once for each that is counted.
    NoMemory,
    /// A read succeeds, but one byte of it is changed (exclusive or).
    Corrupt {
        offset: u64,
        value: u8,
    },
}

/// Which requests fail next, and how many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Injection {
    pub fault: Fault,
    pub count: u64,
    /// Only when at least so many requests are under way in the channel.
    pub queue_depth: u64,
}

#[derive(Default)]
struct Shared {
    /// Whether there is any injection: the only thing that a request looks at otherwise.
    active: AtomicBool,
    injections: Mutex<[Option<Injection>; Kind::ALL.len()]>,
    /// How often `resume` was called.
    resumed: AtomicU64,
}

impl Shared {
    fn injections(&self) -> MutexGuard<'_, [Option<Injection>; Kind::ALL.len()]> {
        self.injections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, kind: Kind, in_flight: u64) -> Option<Fault> {
        let mut injections = self.injections();
        let place = &mut injections[kind as usize];
        let injection = place.as_mut().filter(|injection| in_flight >= injection.queue_depth)?;
        let fault = injection.fault;
        injection.count -= 1;
        if injection.count == 0 {
            *place = None;
        }
        self.active.store(injections.iter().any(Option::is_some), Relaxed);
        Some(fault)
    }
}

pub struct ErrorBdev {
    base: Base,
    shared: Arc<Shared>,
    below: Below,
}

impl ErrorBdev {
    /// Its name is that of the bdev below with `EE_` before it, as in SPDK.
    pub fn new(below: Arc<dyn Bdev>, uuid: Uuid) -> Result<Self, BdevError> {
        let below = Below::claim(below);
        let name = format!("EE_{}", below.name());
        Ok(Self { base: below.base(&name, uuid, "Error Injection Disk")?, shared: Arc::default(), below })
    }

    /// # Errors
    /// EINVAL for an injection that does nothing.
    pub fn inject(&self, kinds: &[Kind], injection: Injection) -> Result<(), BdevError> {
        let wrong = |what: &str| Err(BdevError::new(libc::EINVAL, format!("{}: {what}", self.info().name)));
        if injection.count == 0 {
            return wrong("no requests to fail");
        }
        if let Fault::Corrupt { value: 0, .. } = injection.fault {
            return wrong("corrupting by exclusive or with 0 changes nothing");
        }
        if matches!(injection.fault, Fault::Corrupt { .. }) && kinds.iter().any(|&kind| kind != Kind::Read) {
            return wrong("only reads can be corrupted: the memory of a write is the guest's");
        }
        let mut injections = self.shared.injections();
        for &kind in kinds {
            injections[kind as usize] = Some(injection);
        }
        self.shared.active.store(true, Relaxed);
        Ok(())
    }

    pub fn clear(&self) {
        *self.shared.injections() = Default::default();
        self.shared.active.store(false, Relaxed);
    }

    /// What was held (`Fault::Pending`) goes on.
    pub fn resume(&self) {
        self.shared.resumed.fetch_add(1, Relaxed);
    }
}

impl Bdev for ErrorBdev {
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
        Ok(Backend::Error(Box::new(ErrorChannel {
            below: self.below.bdev().backend(reactor)?,
            shared: self.shared.clone(),
            below_pending: 0,
            held: Vec::new(),
            corrupt: Vec::new(),
            resumed: self.shared.resumed.load(Relaxed),
        })))
    }

    fn driver_specific(&self) -> Value {
        json!({"error_disk": {"base_bdev": self.below.name()}})
    }
}

/// A request that does not end by itself.
struct Held {
    operation: Operation,
    offset: u64,
    length: u64,
    segments: Vec<Segment>,
    token: u64,
}

/// A read whose bytes are to be changed when it ends.
struct Corrupt {
    token: u64,
    segments: Vec<Segment>,
    offset: u64,
    value: u8,
}

pub struct ErrorChannel {
    below: Backend,
    shared: Arc<Shared>,
    below_pending: usize,
    held: Vec<Held>,
    corrupt: Vec<Corrupt>,
    resumed: u64,
}

fn flip(segments: &[Segment], offset: u64, value: u8) {
    let mut byte = [0];
    if copy::copy_in(segments, offset as usize, &mut byte) == 1 {
        copy::copy_out(&[byte[0] ^ value], segments, offset as usize);
    }
}

impl ErrorChannel {
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Submitted {
        if !self.shared.active.load(Relaxed) {
            return self.pass(request);
        }
        let in_flight = (self.below_pending + self.held.len()) as u64;
        match self.shared.take(Kind::of(request.operation), in_flight) {
            None => self.pass(request),
            Some(Fault::Failure) => Submitted::Done(Status::IoError),
            Some(Fault::NoMemory) => Submitted::Busy,
            Some(Fault::Pending) => {
                let Request { operation, offset, length, token, segments } = *request;
                self.held.push(Held { operation, offset, length, segments: segments.to_vec(), token });
                Submitted::Pending
            }
            Some(Fault::Corrupt { offset, value }) => {
                let submitted = self.pass(request);
                match submitted {
                    Submitted::Done(Status::Ok) => flip(request.segments, offset, value),
                    Submitted::Pending => {
                        let segments = request.segments.to_vec();
                        self.corrupt.push(Corrupt { token: request.token, segments, offset, value });
                    }
                    _ => {}
                }
                submitted
            }
        }
    }

    fn pass(&mut self, request: &Request<'_>) -> Submitted {
        let submitted = self.below.submit(request);
        self.below_pending += usize::from(submitted == Submitted::Pending);
        submitted
    }

    pub(crate) fn kick(&mut self) {
        self.below.kick();
    }

    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) {
        let resumed = self.shared.resumed.load(Relaxed);
        if resumed != self.resumed {
            self.go_on(completions);
            // Those that the device had no room for stay, and are asked again at the next poll.
            if self.held.is_empty() {
                self.resumed = resumed;
            }
        }
        let known = completions.len();
        self.below.poll(completions);
        self.below_pending -= completions.len() - known;
        for completion in &completions[known..] {
            if let Some(index) = self.corrupt.iter().position(|read| read.token == completion.token) {
                let read = self.corrupt.swap_remove(index);
                if completion.status == Status::Ok {
                    flip(&read.segments, read.offset, read.value);
                }
            }
        }
    }

    fn go_on(&mut self, completions: &mut Vec<Completion>) {
        for held in std::mem::take(&mut self.held) {
            let Held { operation, offset, length, token, .. } = held;
            match self.pass(&Request { operation, offset, length, token, segments: &held.segments }) {
                Submitted::Done(status) => completions.push(Completion { token, status }),
                Submitted::Pending => {}
                Submitted::Busy => self.held.push(held),
            }
        }
        self.below.kick();
    }

    /// While a request is held only `resume` ends it, which nothing signals: then the channel is polled.
    pub(crate) fn arm(&mut self) -> bool {
        self.held.is_empty() && self.below.arm()
    }

    pub(crate) fn settle(&mut self) {
        self.below.settle();
    }

    pub(crate) fn wait_descriptor(&self) -> Option<std::os::fd::RawFd> {
        self.below.wait_descriptor()
    }
}
