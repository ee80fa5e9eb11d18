//! What is completed is shown to the driver.

use super::{Done, EVENT_DESCRIPTOR, EVENT_DISABLE, Packed, Position, word};
use crate::buffers::WRITE;
use crate::notify::crossed;
use crate::sync::Ordering::{Relaxed, Release};

impl Packed {
    #[inline(always)]
    pub(super) fn wants_call(&self, count: u32) -> bool {
        let event = self.areas.driver_event().load(Relaxed);
        match event >> 16 & 3 {
            EVENT_DISABLE => false,
            EVENT_DESCRIPTOR if self.event_idx => {
                let at = Position::from_bits(event as u16);
                let lap = if at.wrap == self.next_used.wrap { 0 } else { self.areas.size };
                crossed(at.index.wrapping_sub(lap), self.next_used.index, count)
            }
            _ => true,
        }
    }

    /// Shows the driver what is completed; how many places it takes.
    #[inline(always)]
    pub(super) fn uncover(&mut self) -> u32 {
        let Some((first, others)) = self.batch.split_first() else { return 0 };
        let (size, start) = (self.areas.size, self.next_used);
        let used = |at: Position, done: &Done| {
            let write = if done.written != 0 { WRITE } else { 0 };
            (at.index, word(done.written, done.chain.id, at.used_flags() | write))
        };
        let mut count = u32::from(first.chain.descriptors);
        let mut at = start.advance(first.chain.descriptors, size);
        if let Some(record) = &self.record {
            let end = others.iter().fold(at, |at, done| at.advance(done.chain.descriptors, size));
            record.about_to_publish(self.batch.iter().map(|done| done.chain.id), start, end);
        }
        for done in others {
            let (index, word) = used(at, done);
            self.areas.word(index, 1).store(word, Relaxed);
            count += u32::from(done.chain.descriptors);
            at = at.advance(done.chain.descriptors, size);
        }
        if let Some(log) = &self.log {
            let mut at = start;
            for done in &self.batch {
                log.ring(self.ring_address + 16 * u64::from(at.index), 16);
                at = at.advance(done.chain.descriptors, size);
            }
        }
        // The driver looks at the used descriptors in order: the first one uncovers the batch.
        let (index, word) = used(start, first);
        self.areas.word(index, 1).store(word, Release);
        if let Some(record) = &self.record {
            record.published(self.batch.iter().map(|done| done.chain.id), at);
        }
        self.batch.clear();
        self.next_used = at;
        self.taken -= count as u16;
        count
    }

    #[inline(always)]
    pub(super) fn settle(&mut self) -> bool {
        let mut call = std::mem::take(&mut self.call);
        let wanted = call.settle(|count| self.wants_call(count));
        self.call = call;
        wanted
    }
}
