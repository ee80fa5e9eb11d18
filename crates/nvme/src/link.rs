//! What a queue pair and the supervisor share: the only place where their threads meet.
//!
//! ```text
//!   supervisor                      queue pair
//!   Down     ── epoch + 1 ──>       stops touching the device, answers `LetGo`
//!   (resets the controller, creates the queues anew)
//!   Up(rings)── epoch + 1 ──>       sends again what was in flight, goes on
//!   Dead     ── epoch + 1 ──>       fails what was in flight
//! ```
//!
//! `Up` and `Dead` come only when the device reads and writes no memory any more, so nothing is completed, and no memory
//! let go, while a write of the old life may still arrive.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::NvmeError;
use crate::inbox::{Inbox, new_event, signal};
use crate::queue::{Outcome, Rings};

pub(crate) enum Stage {
    /// Before the first `Up`.
    New,
    Down,
    Up(Rings),
    /// The queue pair has picked its rings up.
    Taken,
    Dead(Outcome),
}

#[repr(align(64))]
pub(crate) struct Link {
    /// Changes with `stage`.
    epoch: AtomicU32,
    /// The supervisor's clock.
    tick: AtomicU32,
    /// The reactor sleeps with requests in flight.
    armed: AtomicBool,
    pub queue: u16,
    pub entries: u16,
    /// The MSI-X vector, where there are enough of them.
    pub vector: Option<u16>,
    stage: Mutex<Stage>,
    event: OwnedFd,
    pub inbox: Arc<Inbox>,
}

impl Link {
    pub fn new(queue: u16, entries: u16, vector: Option<u16>, inbox: Arc<Inbox>) -> Result<Self, NvmeError> {
        Ok(Self {
            epoch: AtomicU32::new(0),
            tick: AtomicU32::new(0),
            armed: AtomicBool::new(false),
            queue,
            entries,
            vector,
            stage: Mutex::new(Stage::New),
            event: new_event()?,
            inbox,
        })
    }

    #[inline(always)]
    pub fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    #[inline(always)]
    pub fn tick(&self) -> u32 {
        self.tick.load(Ordering::Relaxed)
    }

    /// The stage under its lock, with the epoch it belongs to.
    pub fn stage(&self) -> (MutexGuard<'_, Stage>, u32) {
        let stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.epoch.load(Ordering::Acquire);
        (stage, epoch)
    }

    /// The supervisor's word; what it was before, if the queue pair has not heard it.
    pub fn set(&self, new: Stage) -> Stage {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *stage, new);
        self.epoch.fetch_add(1, Ordering::Release);
        drop(stage);
        signal(self.event());
        old
    }

    /// Time goes on. A reactor that sleeps over requests is woken to look for late ones.
    pub fn set_tick(&self, tick: u32) {
        self.tick.store(tick, Ordering::Relaxed);
        if self.armed.load(Ordering::Acquire) {
            signal(self.event());
        }
    }

    pub fn set_armed(&self, armed: bool) {
        self.armed.store(armed, Ordering::SeqCst);
    }

    /// Readable when the queue's interrupt came or the supervisor has news.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}
