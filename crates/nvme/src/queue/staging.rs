//! The memory that commands point to besides guests' memory: PRP lists, ranges to deallocate, bounce buffers. It stays
//! the same when the rings are replaced.

use std::sync::Arc;

use nvlane_memory::Segment;

use super::prp::{self, List};
use crate::spec::PAGE;
use crate::{DmaBuffer, NvmeError};

/// A bounce buffer. A request that needs one is slow anyway; sixteen are a mebibyte.
pub(super) const BOUNCE: usize = 64 << 10;
const BOUNCES: usize = 16;
/// More than this in one command gains nothing, and its PRP list would need a page for each tracker.
const MAX_TRANSFER: usize = 1 << 20;

pub(super) struct Staging {
    memory: Arc<DmaBuffer>,
    list_bytes: usize,
    bounces_at: usize,
    free: Vec<u8>,
    /// Bytes of one command with data.
    pub max_transfer: usize,
}

impl Staging {
    pub fn new(trackers: u16, device_limit: Option<usize>) -> Result<Self, NvmeError> {
        let max_transfer = device_limit.unwrap_or(MAX_TRANSFER).clamp(PAGE, MAX_TRANSFER);
        // max_transfer bytes touch one page more than they fill, and the first needs no entry. A power of two of at
        // most a page: a list never crosses one. At least the 16 bytes of a range to deallocate.
        let list_bytes = (max_transfer / PAGE * 8).max(16).next_power_of_two();
        let bounces_at = (usize::from(trackers) * list_bytes).next_multiple_of(PAGE);
        let memory = Arc::new(DmaBuffer::new(bounces_at + BOUNCES * BOUNCE)?);
        Ok(Self { memory, list_bytes, bounces_at, free: (0..BOUNCES as u8).collect(), max_transfer })
    }

    /// For who keeps it until the device has forgotten it.
    pub fn memory(&self) -> Arc<DmaBuffer> {
        self.memory.clone()
    }

    /// PRP1 and PRP2 of a command's data.
    #[inline]
    pub fn describe(
        &self,
        tracker: u16,
        segments: impl Iterator<Item = Segment>,
        bytes: usize,
    ) -> Option<(u64, u64)> {
        let offset = usize::from(tracker) * self.list_bytes;
        prp::describe(segments, bytes, &List { memory: &self.memory, offset, entries: self.list_bytes / 8 })
    }

    /// One range of a Dataset Management (NVM Command Set Specification 1.0, 3.2.3): its address.
    pub fn range(&self, tracker: u16, lba: u64, blocks: u32) -> u64 {
        let offset = usize::from(tracker) * self.list_bytes;
        self.memory.store64(offset, u64::from(blocks) << 32);
        self.memory.store64(offset + 8, lba);
        self.memory.iova(offset)
    }

    pub fn take_bounce(&mut self) -> Option<u8> {
        self.free.pop()
    }

    pub fn give_bounce(&mut self, bounce: u8) {
        debug_assert!(!self.free.contains(&bounce));
        self.free.push(bounce);
    }

    fn bounce_at(&self, bounce: u8) -> usize {
        self.bounces_at + usize::from(bounce) * BOUNCE
    }

    pub fn bounce_prps(&self, tracker: u16, bounce: u8, bytes: usize) -> Option<(u64, u64)> {
        self.describe(tracker, std::iter::once(self.memory.part(self.bounce_at(bounce), bytes)), bytes)
    }

    pub fn fill_bounce(&self, bounce: u8, pieces: &[Segment], bytes: usize) {
        self.memory.gather(pieces, self.bounce_at(bounce), bytes);
    }

    pub fn empty_bounce(&self, bounce: u8, pieces: &[Segment], bytes: usize) {
        self.memory.scatter(self.bounce_at(bounce), pieces, bytes);
    }
}
