//! From descriptors to segments: what both kinds of ring have in common.

use nvlane_memory::{GuestMemory, Hint, Segment};

use crate::chain::Segments;
use crate::error::RingError;
use crate::sync::{AtomicU64, Ordering};

// Descriptor flags, the same on both kinds (virtio 1.3, sections 2.7.5 and 2.8.1).
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;

/// The size of a descriptor.
pub(crate) const DESCRIPTOR: u32 = 16;

/// Collects the buffers of one chain.
pub(crate) struct Buffers<'a> {
    pub memory: &'a GuestMemory,
    pub hint: &'a mut Hint,
    pub segments: &'a mut Segments,
    /// Where device-writable buffers are noted for the dirty log.
    pub written: Option<&'a mut Vec<(u64, u32)>>,
    /// For errors.
    pub id: u16,
    pub any_writable: bool,
}

impl Buffers<'_> {
    #[inline(always)]
    pub fn add(&mut self, address: u64, length: u32, writable: bool) -> Result<(), RingError> {
        if writable {
            self.any_writable = true;
            if let Some(written) = &mut self.written {
                written.push((address, length));
            }
        } else if self.any_writable {
            return Err(RingError::Order(self.id)); // 2.7.4.2, 2.8.5
        }
        match self.memory.translate_near(self.hint, address, u64::from(length)) {
            Some((base, found)) if found == u64::from(length) && length != 0 => {
                self.push(base, length as usize, writable)
            }
            _ => self.add_pieces(address, length, writable),
        }
    }

    /// A buffer that crosses from one region into the next, or has no bytes and is left out, or is nowhere.
    #[cold]
    fn add_pieces(&mut self, mut address: u64, length: u32, writable: bool) -> Result<(), RingError> {
        let mut left = u64::from(length);
        while left > 0 {
            let (base, found) = self
                .memory
                .translate_near(self.hint, address, left)
                .ok_or(RingError::Address { address, length: left as u32 })?;
            self.push(base, found as usize, writable)?;
            left -= found;
            address = address.checked_add(found).ok_or(RingError::Address { address, length })?;
        }
        Ok(())
    }

    #[inline(always)]
    fn push(&mut self, base: *mut u8, length: usize, writable: bool) -> Result<(), RingError> {
        // SAFETY: the range lies in a region of the table, which the queue holds for longer than any request of it.
        let segment = unsafe { Segment::new(base, length) };
        if self.segments.push(segment, writable) { Ok(()) } else { Err(RingError::TooManySegments(self.id)) }
    }
}

/// The first bytes of a chain, by its first descriptor: a look that changes nothing and may be wrong by the time the chain
/// is taken. `None`: there is no short way to them.
#[inline]
pub(crate) fn peek(
    memory: &GuestMemory,
    hint: &mut Hint,
    mut address: u64,
    mut length: u32,
    flags: u16,
) -> Option<[u8; 16]> {
    let mut place = |address, length| {
        let (base, found) = memory.translate_near(hint, address, 16)?;
        (found == 16 && length >= 16).then_some(base)
    };
    if flags & INDIRECT != 0 {
        let first = Table { base: place(address, length)?, entries: 1 }.entry(0);
        (address, length) = (first.0, first.1 as u32);
    }
    let mut bytes = [0; 16];
    // SAFETY: 16 bytes in a region of the table, which the caller holds.
    let segment = unsafe { Segment::new(place(address, length)?, 16) };
    nvlane_memory::copy::copy_in(&[segment], 0, &mut bytes);
    Some(bytes)
}

/// An indirect table, bounded when it was found.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    base: *const u8,
    pub entries: u32,
}

impl Table {
    #[inline(always)]
    pub fn find(buffers: &mut Buffers, address: u64, length: u32) -> Result<Table, RingError> {
        if length == 0 || length % DESCRIPTOR != 0 {
            return Err(RingError::Indirect(buffers.id));
        }
        match buffers.memory.translate_near(buffers.hint, address, u64::from(length)) {
            Some((base, found)) if found == u64::from(length) => {
                Ok(Table { base, entries: length / DESCRIPTOR })
            }
            _ => Err(RingError::Address { address, length }),
        }
    }

    /// The address in the first entry of what may be a table, for fetching it: nothing is promised about it.
    #[inline(always)]
    pub fn peek(hint: &Hint, address: u64) -> Option<u64> {
        let base = hint.find(address, 8).filter(|&(base, found)| found == 8 && base as usize % 8 == 0)?.0;
        // SAFETY: eight bytes in a region of the table that the hint came from, aligned, as was just checked.
        Some(unsafe { &*base.cast::<AtomicU64>() }.load(Ordering::Relaxed))
    }

    /// Both words of an entry, each read once.
    #[inline(always)]
    pub fn entry(&self, index: u32) -> (u64, u64) {
        debug_assert!(index < self.entries);
        let at = self.base.wrapping_add(index as usize * DESCRIPTOR as usize);
        if at as usize % 8 != 0 {
            return self.misaligned(at);
        }
        let words: *const AtomicU64 = at.cast();
        // SAFETY: the entry is within the table, which lies in one region of guest memory; aligned, as was just checked.
        unsafe { ((*words).load(Ordering::Relaxed), (*words.add(1)).load(Ordering::Relaxed)) }
    }

    /// Nothing says that a table is aligned.
    #[cold]
    fn misaligned(&self, at: *const u8) -> (u64, u64) {
        let mut bytes = [0; 16];
        // SAFETY: within the table, as above.
        let segment = unsafe { Segment::new(at.cast_mut(), 16) };
        nvlane_memory::copy::copy_in(&[segment], 0, &mut bytes);
        let word = |from: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[from + byte]));
        (word(0), word(8))
    }
}
