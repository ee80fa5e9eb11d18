//! Where the fields of a split virtqueue are.

use crate::config::QueueConfig;
use crate::error::RingError;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64};

/// The fields of the three areas, each of which holds what the size says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Areas {
    /// Two words for each of `size` descriptors.
    pub descriptors: *const AtomicU64,
    pub avail_flags: *const AtomicU16,
    pub avail_idx: *const AtomicU16,
    /// `size` heads.
    pub avail_ring: *const AtomicU16,
    pub used_event: *const AtomicU16,
    pub used_flags: *const AtomicU16,
    pub used_idx: *const AtomicU16,
    /// Two words for each of `size` elements.
    pub used_ring: *const AtomicU32,
    pub avail_event: *const AtomicU16,
    /// A power of two, at most 32768.
    pub size: u16,
}

macro_rules! field {
    ($name:ident, $atomic:ty) => {
        #[inline(always)]
        pub(crate) fn $name(&self) -> &$atomic {
            // SAFETY: a field of ring memory that was found in one piece and aligned when the queue was made
            // (`Areas::find`); the queue holds the memory, and everybody in this process uses atomics.
            unsafe { &*self.$name }
        }
    };
}

macro_rules! element {
    ($name:ident, $field:ident, $atomic:ty, $words:literal) => {
        #[inline(always)]
        pub(crate) fn $name(&self, index: u16, word: usize) -> &$atomic {
            debug_assert!(index < self.size && word < $words);
            // SAFETY: as for the fields; the index was masked or checked against the frozen size.
            unsafe { &*self.$field.add(usize::from(index) * $words + word) }
        }
    };
}

impl Areas {
    field!(avail_flags, AtomicU16);
    field!(avail_idx, AtomicU16);
    field!(used_event, AtomicU16);
    field!(used_flags, AtomicU16);
    field!(used_idx, AtomicU16);
    field!(avail_event, AtomicU16);
    element!(descriptor, descriptors, AtomicU64, 2);
    element!(available, avail_ring, AtomicU16, 1);
    element!(used, used_ring, AtomicU32, 2);

    /// Finds the areas in guest memory. The event fields at the ends of the rings are there only when negotiated.
    pub(crate) fn find(config: &QueueConfig) -> Result<Areas, RingError> {
        let size = usize::from(config.size);
        if !size.is_power_of_two() || size > 32768 {
            return Err(RingError::Size(config.size));
        }
        let event = if config.event_idx { 2 } else { 0 };
        let (avail_length, used_length) = (4 + 2 * size + event, 4 + 8 * size + event);
        let table = config.area("descriptor table", config.addresses.descriptors, 16 * size, 16)?;
        let avail = config.area("available ring", config.addresses.driver, avail_length, 2)?;
        let used = config.area("used ring", config.addresses.device, used_length, 4)?;
        Ok(Areas {
            descriptors: table.cast_const().cast(),
            avail_flags: avail.cast_const().cast(),
            avail_idx: avail.wrapping_add(2).cast_const().cast(),
            avail_ring: avail.wrapping_add(4).cast_const().cast(),
            used_event: avail.wrapping_add(4 + 2 * size).cast_const().cast(),
            used_flags: used.cast_const().cast(),
            used_idx: used.wrapping_add(2).cast_const().cast(),
            used_ring: used.wrapping_add(4).cast_const().cast(),
            avail_event: used.wrapping_add(4 + 8 * size).cast_const().cast(),
            size: config.size,
        })
    }
}
