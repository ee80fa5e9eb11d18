//! The driver's side of a split virtqueue.

use std::sync::Arc;

use nvlane_memory::GuestMemory;

use super::{Buffer, DriverRing, Used};
use crate::buffers::{NEXT, WRITE};
use crate::config::QueueConfig;
use crate::error::RingError;
use crate::notify::crossed;
use crate::split::{Areas, NO_INTERRUPT, NO_NOTIFY};
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::fence;

#[derive(Debug)]
pub struct SplitDriver {
    areas: Areas,
    /// Keeps the areas mapped.
    _memory: Arc<GuestMemory>,
    event_idx: bool,
    next_avail: u16,
    shown: u16,
    next_used: u16,
    free: Vec<u16>,
    /// The descriptors of the chain that starts with each.
    chains: Vec<Vec<u16>>,
}

// SAFETY: the pointers are into memory that the driver holds; one thread at a time has the driver.
unsafe impl Send for SplitDriver {}

impl SplitDriver {
    /// # Errors
    /// When the areas do not fit.
    pub fn new(config: &QueueConfig) -> Result<SplitDriver, RingError> {
        let areas = Areas::find(config)?;
        Ok(SplitDriver::over(areas, config.memory.clone(), config.event_idx))
    }

    /// It goes on where the rings stand.
    pub(crate) fn over(areas: Areas, memory: Arc<GuestMemory>, event_idx: bool) -> SplitDriver {
        let next_avail = areas.avail_idx().load(Relaxed);
        SplitDriver {
            areas,
            _memory: memory,
            event_idx,
            next_avail,
            shown: next_avail,
            next_used: areas.used_idx().load(Relaxed),
            free: (0..areas.size).rev().collect(),
            chains: vec![Vec::new(); usize::from(areas.size)],
        }
    }

    fn write(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        let rest = u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.areas.descriptor(index, 0).store(address, Relaxed);
        self.areas.descriptor(index, 1).store(rest, Relaxed);
    }

    fn offer(&mut self, head: u16) {
        self.areas.available(self.next_avail & (self.areas.size - 1), 0).store(head, Relaxed);
        self.next_avail = self.next_avail.wrapping_add(1);
    }
}

impl DriverRing for SplitDriver {
    #[inline]
    fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        if buffers.is_empty() || buffers.len() > self.free.len() {
            return None;
        }
        let first = self.free.len() - buffers.len();
        let head = self.free[first];
        let mut chain = std::mem::take(&mut self.chains[usize::from(head)]);
        chain.clear();
        chain.extend_from_slice(&self.free[first..]);
        self.free.truncate(first);
        for (place, buffer) in buffers.iter().enumerate() {
            let write = if buffer.writable { WRITE } else { 0 };
            let (next, flags) = chain.get(place + 1).map_or((0, write), |&next| (next, write | NEXT));
            self.write(chain[place], buffer.address, buffer.length, flags, next);
        }
        self.chains[usize::from(head)] = chain;
        self.offer(head);
        Some(head)
    }

    fn add_raw(&mut self, address: u64, length: u32, flags: u16) -> Option<u16> {
        let head = self.free.pop()?;
        self.write(head, address, length, flags, 0);
        self.chains[usize::from(head)] = vec![head];
        self.offer(head);
        Some(head)
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let count = self.next_avail.wrapping_sub(self.shown);
        if count == 0 {
            return false;
        }
        self.shown = self.next_avail;
        self.areas.avail_idx().store(self.next_avail, Release);
        fence(SeqCst);
        if self.event_idx {
            crossed(self.areas.avail_event().load(Relaxed), self.next_avail, u32::from(count))
        } else {
            self.areas.used_flags().load(Relaxed) & NO_NOTIFY == 0
        }
    }

    #[inline]
    fn reap(&mut self) -> Option<Used> {
        if self.areas.used_idx().load(Acquire) == self.next_used {
            return None;
        }
        let place = self.next_used & (self.areas.size - 1);
        let id = self.areas.used(place, 0).load(Relaxed) as u16;
        let written = self.areas.used(place, 1).load(Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
        let chain = &mut self.chains[usize::from(id)];
        assert!(!chain.is_empty(), "{id} was completed and not in flight");
        self.free.append(chain);
        Some(Used { id, written })
    }

    fn disable_calls(&mut self) {
        if self.event_idx {
            self.areas.used_event().store(self.next_used.wrapping_sub(1), Relaxed);
        } else {
            self.areas.avail_flags().store(NO_INTERRUPT, Relaxed);
        }
    }

    fn enable_calls(&mut self) -> bool {
        if self.event_idx {
            self.areas.used_event().store(self.next_used, Relaxed);
        } else {
            self.areas.avail_flags().store(0, Relaxed);
        }
        fence(SeqCst);
        self.areas.used_idx().load(Acquire) == self.next_used
    }

    fn free(&self) -> usize {
        self.free.len()
    }
}
