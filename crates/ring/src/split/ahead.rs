//! Requests that are to be taken soon are brought closer.

use super::{Split, fields};
use crate::buffers::{INDIRECT, Table};
use crate::sync::Ordering::Relaxed;

/// How many requests ahead a descriptor is fetched, what it names, and what an indirect table names: each far enough
/// behind the one before it to have arrived (some 100 ns from another processor's cache).
const FAR: u16 = 8;
const NEAR: u16 = 5;
const NEXT_BUT_ONE: u16 = 2;

impl Split {
    /// The first of `new` requests that were not there at the last look.
    #[inline(always)]
    pub(super) fn fetch_first_ones(&self, new: u16) {
        for ahead in 0..new.min(FAR) {
            self.fetch_descriptor(ahead);
        }
        for ahead in 0..new.min(NEAR) {
            self.fetch_first(ahead);
        }
    }

    /// Brings requests that are to be taken soon closer, while this one is being served. Each is three misses one after
    /// the other (descriptor, indirect table, header) in lines that the driver's processor has just written; left to
    /// themselves they cost more than everything else about a request.
    #[inline(always)]
    pub(super) fn fetch_ahead(&self) {
        let waiting = self.seen_avail.wrapping_sub(self.next_avail);
        if waiting > FAR {
            self.fetch_descriptor(FAR);
        }
        if waiting > NEAR {
            self.fetch_first(NEAR);
        }
        if waiting > NEXT_BUT_ONE && self.indirect {
            self.fetch_header(NEXT_BUT_ONE);
        }
    }

    /// The head that is this many requests ahead. The driver may have written anything.
    #[inline(always)]
    fn head_ahead(&self, ahead: u16) -> Option<u16> {
        let head = self.areas.available(self.next_avail.wrapping_add(ahead) & self.mask, 0).load(Relaxed);
        (head < self.areas.size).then_some(head)
    }

    #[inline(always)]
    fn fetch_descriptor(&self, ahead: u16) {
        if let Some(head) = self.head_ahead(ahead) {
            nvlane_memory::copy::prefetch(std::ptr::from_ref(self.areas.descriptor(head, 0)).cast());
        }
    }

    /// What the first descriptor names: the header, or the indirect table.
    #[inline(always)]
    fn fetch_first(&self, ahead: u16) {
        if let Some(head) = self.head_ahead(ahead) {
            self.hint.prefetch(self.areas.descriptor(head, 0).load(Relaxed));
        }
    }

    /// The header of a request with an indirect table.
    #[inline(always)]
    fn fetch_header(&self, ahead: u16) {
        let Some(head) = self.head_ahead(ahead) else { return };
        let (address, rest) =
            (self.areas.descriptor(head, 0).load(Relaxed), self.areas.descriptor(head, 1).load(Relaxed));
        let (address, _, flags, _) = fields(address, rest);
        if flags & INDIRECT != 0 {
            if let Some(first) = Table::peek(&self.hint, address) {
                self.hint.prefetch(first);
            }
        }
    }
}
