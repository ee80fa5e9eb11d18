//! The record of a packed ring: copies of the descriptors in flight, since their places in the ring are overwritten,
//! on lists that are taken from and given back to a free list.
//!
//! Each pop and each publish is one step that is committed by its last store, or rolled back: between them `free_head`
//! equals `old_free_head`.
//!
//! Two things go beyond the specification; a test that kills the device at each store showed both to be needed.
//! A batch of several used descriptors becomes visible with its first, which is written last; a process killed in
//! between leaves the others in the ring, where a later, differently ordered batch would uncover them. So a batch that
//! is rolled back is also scrubbed out of the ring. And a position is its index together with its wrap counter: they
//! are written in one 64-bit store, with the old ones, or a batch that crosses the end of the ring would leave a moment
//! in which the record names a lap that never was.

use super::InflightQueue;
use crate::config::Layout;
use crate::error::RingError;
use crate::packed::{Descriptor, Position};
use crate::sync::Ordering::{Relaxed, Release};

pub(crate) const HEADER: usize = 32;
pub(crate) const ENTRY: usize = 32;

// struct QueueRegionPacked
const FEATURES: usize = 0;
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const FREE_HEAD: usize = 12;
const OLD_FREE_HEAD: usize = 14;
/// used_idx, old_used_idx (16 bits each), used_wrap_counter, old_used_wrap_counter (8 bits each), padding.
const POSITIONS: usize = 16;
// struct DescStatePacked
const INFLIGHT: usize = 0;
const NEXT: usize = 2;
const LAST: usize = 4;
const NUM: usize = 6;
const COUNTER: usize = 8;
const ID: usize = 16;
const FLAGS: usize = 18;
const LEN: usize = 20;
const ADDR: usize = 24;

#[derive(Debug)]
pub(crate) struct PackedRecord {
    region: InflightQueue,
    counter: u64,
    /// The entry of each buffer id in flight.
    entries: Box<[u16]>,
}

/// A chain of the previous process.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub id: u16,
    pub descriptors: Vec<Descriptor>,
}

/// Where the ring stands, and what was in flight, oldest first.
pub(crate) struct Opened {
    pub record: PackedRecord,
    pub used: Position,
    pub chains: Vec<Recovered>,
}

fn entry(index: u16) -> usize {
    HEADER + ENTRY * usize::from(index)
}

/// The ring as the recovery sees it.
pub(crate) trait UsedFlags {
    /// Whether the place still holds what the driver made available in the lap of this position.
    fn still_available(&self, at: Position) -> bool;
    /// Makes a used descriptor at this position an unused one.
    fn scrub(&self, at: Position);
}

impl PackedRecord {
    /// Opens the record of a ring of `size`; `start` is its used position when the record is new.
    pub fn open(
        region: InflightQueue,
        size: u16,
        start: Position,
        ring: &impl UsedFlags,
    ) -> Result<Opened, RingError> {
        if region.layout() != Layout::Packed || region.capacity() < size {
            return Err(RingError::InflightShape {
                record: (region.layout(), region.capacity()),
                ring: (Layout::Packed, size),
            });
        }
        let entries = vec![0; usize::from(size)].into_boxed_slice();
        let mut record = PackedRecord { region, counter: 0, entries };
        let region = &record.region;
        match region.u16(VERSION).load(Relaxed) {
            0 => {
                record.initialise(start);
                return Ok(Opened { record, used: start, chains: Vec::new() });
            }
            1 if region.u64(FEATURES).load(Relaxed) == 0 => (),
            _ => return Err(RingError::Inflight("its version is unknown")),
        }
        let entries = region.u16(DESC_NUM).load(Relaxed);
        record.region.narrow(entries, size)?;
        let used = record.settle(size, ring)?;
        let chains = record.collect(size)?;
        Ok(Opened { record, used, chains })
    }

    fn initialise(&self, start: Position) {
        let region = &self.region;
        for index in 0..region.capacity() {
            region.u8(entry(index) + INFLIGHT).store(0, Relaxed);
            region.u16(entry(index) + NEXT).store(index + 1, Relaxed);
        }
        region.u64(FEATURES).store(0, Relaxed);
        region.u16(DESC_NUM).store(region.capacity(), Relaxed);
        region.u16(FREE_HEAD).store(0, Relaxed);
        region.u16(OLD_FREE_HEAD).store(0, Relaxed);
        self.set_positions(start, start);
        region.u16(VERSION).store(1, Release);
    }

    fn set_positions(&self, used: Position, old: Position) {
        let indices = u64::from(used.index) | u64::from(old.index) << 16;
        let wraps = u64::from(used.wrap) | u64::from(old.wrap) << 8;
        self.region.u64(POSITIONS).store(indices | wraps << 32, Release);
    }

    /// The used position, and the old one.
    fn positions(&self, size: u16) -> Result<(Position, Position), RingError> {
        let word = self.region.u64(POSITIONS).load(Relaxed);
        let (used, old) = (word as u16, (word >> 16) as u16);
        let (used_wrap, old_wrap) = ((word >> 32) as u8, (word >> 40) as u8);
        if used >= size || old >= size || used_wrap > 1 || old_wrap > 1 {
            return Err(RingError::Inflight("its used position is beyond the ring"));
        }
        Ok((Position { index: used, wrap: used_wrap == 1 }, Position { index: old, wrap: old_wrap == 1 }))
    }

    /// Commits or rolls back what the previous process was doing; the used position.
    fn settle(&self, size: u16, ring: &impl UsedFlags) -> Result<Position, RingError> {
        let (new, old) = self.positions(size)?;
        // The specification compares the indices; a batch that fills the ring changes the wrap counter alone.
        if new != old && !ring.still_available(old) {
            self.commit(new);
            self.clear_free_list()?;
            return Ok(new);
        }
        if new != old {
            let mut at = old;
            loop {
                ring.scrub(at);
                at = at.advance(1, size);
                if at.index == new.index {
                    break;
                }
            }
        }
        let free = self.region.u16(OLD_FREE_HEAD).load(Relaxed);
        self.region.u16(FREE_HEAD).store(free, Release);
        self.set_positions(old, old);
        self.clear_free_list()?;
        Ok(old)
    }

    fn commit(&self, used: Position) {
        let free = self.region.u16(FREE_HEAD).load(Relaxed);
        self.region.u16(OLD_FREE_HEAD).store(free, Release);
        self.set_positions(used, used);
    }

    /// The entries of the free list, which ends with the first index beyond the capacity.
    fn free_list(&self) -> Result<Vec<bool>, RingError> {
        let mut free = vec![false; usize::from(self.region.capacity())];
        let mut index = self.region.u16(FREE_HEAD).load(Relaxed);
        while let Some(seen) = free.get_mut(usize::from(index)) {
            if std::mem::replace(seen, true) {
                return Err(RingError::Inflight("its free list loops"));
            }
            index = self.region.u16(entry(index) + NEXT).load(Relaxed);
        }
        Ok(free)
    }

    fn clear_free_list(&self) -> Result<(), RingError> {
        for (index, free) in (0..).zip(self.free_list()?) {
            if free {
                self.region.u8(entry(index) + INFLIGHT).store(0, Release);
            }
        }
        Ok(())
    }

    /// The chains in flight, oldest first; every entry is either free or in exactly one of them.
    fn collect(&mut self, size: u16) -> Result<Vec<Recovered>, RingError> {
        let mut taken = self.free_list()?;
        let mut chains = Vec::new();
        for head in 0..self.region.capacity() {
            match self.region.u8(entry(head) + INFLIGHT).load(Relaxed) {
                0 => continue,
                1 => (),
                _ => return Err(RingError::Inflight("an entry is neither in flight nor free")),
            }
            let counter = self.region.u64(entry(head) + COUNTER).load(Relaxed);
            let count = self.region.u16(entry(head) + NUM).load(Relaxed);
            let mut descriptors = Vec::new();
            let mut index = head;
            for _ in 0..count {
                match taken.get_mut(usize::from(index)) {
                    Some(taken) if !*taken => *taken = true,
                    _ => return Err(RingError::Inflight("its lists overlap")),
                }
                descriptors.push(self.descriptor(index));
                index = self.region.u16(entry(index) + NEXT).load(Relaxed);
            }
            let id = descriptors.last().ok_or(RingError::Inflight("a chain is empty"))?.id;
            *self.entries.get_mut(usize::from(id)).ok_or(RingError::OutOfRange(id))? = head;
            chains.push((counter, Recovered { id, descriptors }));
        }
        let slots: usize = chains.iter().map(|(_, chain)| chain.descriptors.len()).sum();
        if taken.contains(&false) || slots > usize::from(size) {
            return Err(RingError::Inflight("an entry is neither in flight nor free"));
        }
        chains.sort_unstable_by_key(|(counter, _)| *counter);
        self.counter = chains.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        Ok(chains.into_iter().map(|(_, chain)| chain).collect())
    }

    fn descriptor(&self, index: u16) -> Descriptor {
        let at = entry(index);
        Descriptor {
            address: self.region.u64(at + ADDR).load(Relaxed),
            length: self.region.u32(at + LEN).load(Relaxed),
            id: self.region.u16(at + ID).load(Relaxed),
            flags: self.region.u16(at + FLAGS).load(Relaxed),
        }
    }

    /// A chain was taken off the ring. The ring has seen that no more is in flight than it can hold.
    pub fn begin(&mut self, id: u16, descriptors: &[Descriptor]) {
        let region = &self.region;
        let head = region.u16(OLD_FREE_HEAD).load(Relaxed);
        let mut free = head;
        // The list is in memory that the front end can write to: an index beyond it stops the recording, and the next
        // process refuses the record.
        if head >= region.capacity() {
            return;
        }
        region.u16(entry(head) + NUM).store(0, Release);
        region.u64(entry(head) + COUNTER).store(self.counter, Release);
        self.counter = self.counter.wrapping_add(1);
        region.u8(entry(head) + INFLIGHT).store(1, Release);
        for (count, descriptor) in (1u16..).zip(descriptors) {
            if free >= region.capacity() {
                return;
            }
            if usize::from(count) == descriptors.len() {
                region.u16(entry(head) + LAST).store(free, Release);
            }
            region.u16(entry(head) + NUM).store(count, Release);
            region.u64(entry(free) + ADDR).store(descriptor.address, Release);
            region.u32(entry(free) + LEN).store(descriptor.length, Release);
            region.u16(entry(free) + FLAGS).store(descriptor.flags, Release);
            region.u16(entry(free) + ID).store(descriptor.id, Release);
            free = region.u16(entry(free) + NEXT).load(Relaxed);
            region.u16(FREE_HEAD).store(free, Release);
        }
        region.u16(OLD_FREE_HEAD).store(free, Release);
        self.entries[usize::from(id)] = head;
    }

    /// Just before the ring shows the batch: its entries are free again, and the used position is where it will be.
    pub fn about_to_publish(&self, ids: impl Iterator<Item = u16>, old: Position, used: Position) {
        let region = &self.region;
        let mut free = region.u16(FREE_HEAD).load(Relaxed);
        for id in ids {
            let head = self.entries[usize::from(id)];
            let last = region.u16(entry(head) + LAST).load(Relaxed);
            if last < region.capacity() {
                region.u16(entry(last) + NEXT).store(free, Release);
            }
            free = head;
            region.u16(FREE_HEAD).store(free, Release);
        }
        self.set_positions(used, old);
    }

    /// Just after.
    pub fn published(&self, ids: impl Iterator<Item = u16>, used: Position) {
        for id in ids {
            self.region.u8(entry(self.entries[usize::from(id)]) + INFLIGHT).store(0, Release);
        }
        self.commit(used);
    }
}
