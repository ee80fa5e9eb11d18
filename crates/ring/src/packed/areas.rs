//! The places of a packed virtqueue, and the flags that say whose turn it is at each.

use crate::config::QueueConfig;
use crate::error::RingError;
use crate::inflight::packed::UsedFlags;
use crate::sync::Ordering::{Acquire, Release};
use crate::sync::{AtomicU32, AtomicU64};

pub(crate) const AVAIL: u16 = 1 << 7;
pub(crate) const USED: u16 = 1 << 15;

// Event suppression structures (2.8.10): offset and wrap counter below, flags above.
pub(crate) const EVENT_ENABLE: u32 = 0;
pub(crate) const EVENT_DISABLE: u32 = 1;
pub(crate) const EVENT_DESCRIPTOR: u32 = 2;

/// A place in the ring, and the wrap counter of the lap it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub index: u16,
    pub wrap: bool,
}

impl Position {
    pub(crate) fn from_bits(bits: u16) -> Position {
        Position { index: bits & 0x7fff, wrap: bits & 0x8000 != 0 }
    }

    pub(crate) fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// `count` places further; `count` is at most `size`, which is at most 32768.
    #[inline(always)]
    pub(crate) fn advance(self, count: u16, size: u16) -> Position {
        let index = self.index + count;
        if index >= size {
            Position { index: index - size, wrap: !self.wrap }
        } else {
            Position { index, wrap: self.wrap }
        }
    }

    /// The two flags of a descriptor that is available, or used, in this lap.
    #[inline(always)]
    pub(crate) fn available_flags(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    #[inline(always)]
    pub(crate) fn used_flags(self) -> u16 {
        if self.wrap { AVAIL | USED } else { 0 }
    }
}

/// A descriptor as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub address: u64,
    pub length: u32,
    pub id: u16,
    pub flags: u16,
}

/// The ring and the two event suppression structures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Areas {
    /// Two words for each of `size` descriptors.
    pub descriptors: *const AtomicU64,
    pub driver_event: *const AtomicU32,
    pub device_event: *const AtomicU32,
    /// 1 to 32768.
    pub size: u16,
}

impl Areas {
    pub(crate) fn find(config: &QueueConfig) -> Result<Areas, RingError> {
        let size = config.size;
        if size == 0 || size > 32768 {
            return Err(RingError::Size(size));
        }
        let ring =
            config.area("descriptor ring", config.addresses.descriptors, 16 * usize::from(size), 16)?;
        let driver = config.area("driver event suppression structure", config.addresses.driver, 4, 4)?;
        let device = config.area("device event suppression structure", config.addresses.device, 4, 4)?;
        Ok(Areas {
            descriptors: ring.cast_const().cast(),
            driver_event: driver.cast_const().cast(),
            device_event: device.cast_const().cast(),
            size,
        })
    }

    #[inline(always)]
    pub(crate) fn word(&self, index: u16, word: usize) -> &AtomicU64 {
        debug_assert!(index < self.size && word < 2);
        // SAFETY: the ring was found in one piece and aligned when the queue was made; the queue holds the memory; the
        // index is that of a position, which is below the frozen size; everybody in this process uses atomics.
        unsafe { &*self.descriptors.add(usize::from(index) * 2 + word) }
    }

    #[inline(always)]
    pub(crate) fn driver_event(&self) -> &AtomicU32 {
        // SAFETY: as for the ring.
        unsafe { &*self.driver_event }
    }

    #[inline(always)]
    pub(crate) fn device_event(&self) -> &AtomicU32 {
        // SAFETY: as for the ring.
        unsafe { &*self.device_event }
    }

    /// Length, id and flags, which are read (and written) in one piece.
    #[inline(always)]
    pub(crate) fn load(&self, index: u16) -> (u32, u16, u16) {
        let word = self.word(index, 1).load(Acquire);
        (word as u32, (word >> 32) as u16, (word >> 48) as u16)
    }
}

impl UsedFlags for Areas {
    fn still_available(&self, at: Position) -> bool {
        self.load(at.index).2 & (AVAIL | USED) == at.available_flags()
    }

    fn scrub(&self, at: Position) {
        let (length, id, flags) = self.load(at.index);
        if flags & (AVAIL | USED) == at.used_flags() {
            let unused = word(length, id, at.available_flags());
            self.word(at.index, 1).store(unused, Release);
        }
    }
}

#[inline(always)]
pub(crate) fn word(length: u32, id: u16, flags: u16) -> u64 {
    u64::from(length) | u64::from(id) << 32 | u64::from(flags) << 48
}
