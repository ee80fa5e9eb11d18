//! The record of a split ring: one entry for each descriptor, and the list of the last batch.

use super::InflightQueue;
use crate::config::Layout;
use crate::error::RingError;
use crate::sync::Ordering::{Relaxed, Release};

pub(crate) const HEADER: usize = 16;
pub(crate) const ENTRY: usize = 16;

// struct QueueRegionSplit
const FEATURES: usize = 0;
const VERSION: usize = 8;
const DESC_NUM: usize = 10;
const LAST_BATCH_HEAD: usize = 12;
const USED_IDX: usize = 14;
// struct DescStateSplit
const INFLIGHT: usize = 0;
const NEXT: usize = 6;
const COUNTER: usize = 8;

#[derive(Debug)]
pub(crate) struct SplitRecord {
    region: InflightQueue,
    counter: u64,
}

/// What a record says.
#[derive(Debug)]
pub(crate) struct Opened {
    pub record: SplitRecord,
    /// No queue has had it before.
    pub is_new: bool,
    /// The heads in flight, oldest first.
    pub heads: Vec<u16>,
}

fn entry(head: u16) -> usize {
    HEADER + ENTRY * usize::from(head)
}

impl SplitRecord {
    /// Opens the record of a ring whose used index is `used_idx`.
    pub fn open(region: InflightQueue, size: u16, used_idx: u16) -> Result<Opened, RingError> {
        if region.layout() != Layout::Split || region.capacity() < size {
            return Err(RingError::InflightShape {
                record: (region.layout(), region.capacity()),
                ring: (Layout::Split, size),
            });
        }
        let mut record = SplitRecord { region, counter: 0 };
        let region = &record.region;
        match region.u16(VERSION).load(Relaxed) {
            0 => {
                record.initialise(used_idx);
                return Ok(Opened { record, is_new: true, heads: Vec::new() });
            }
            1 if region.u64(FEATURES).load(Relaxed) == 0 => (),
            _ => return Err(RingError::Inflight("its version is unknown")),
        }
        let entries = region.u16(DESC_NUM).load(Relaxed);
        record.region.narrow(entries, size)?;
        record.close_last_batch(size, used_idx)?;
        let mut heads = Vec::new();
        for head in 0..record.region.capacity() {
            match record.region.u8(entry(head) + INFLIGHT).load(Relaxed) {
                0 => (),
                1 if head < size => {
                    heads.push((record.region.u64(entry(head) + COUNTER).load(Relaxed), head))
                }
                _ => return Err(RingError::Inflight("an entry is neither in flight nor free")),
            }
        }
        heads.sort_unstable();
        record.counter = heads.last().map_or(0, |(counter, _)| counter.wrapping_add(1));
        let heads = heads.into_iter().map(|(_, head)| head).collect();
        Ok(Opened { record, is_new: false, heads })
    }

    /// A new file: all zero but what we write, and the version last. The used index is the ring's, which need not be 0
    /// after a migration: a record that says otherwise would let the next process take an entry for completed that
    /// never was (SPDK's issue 3766).
    fn initialise(&self, used_idx: u16) {
        for head in 0..self.region.capacity() {
            self.region.u8(entry(head) + INFLIGHT).store(0, Relaxed);
        }
        self.region.u64(FEATURES).store(0, Relaxed);
        self.region.u16(LAST_BATCH_HEAD).store(0, Relaxed);
        self.region.u16(DESC_NUM).store(self.region.capacity(), Relaxed);
        self.region.u16(USED_IDX).store(used_idx, Release);
        self.region.u16(VERSION).store(1, Release);
    }

    /// "When reconnecting", step 1: what the ring shows as used was completed, whatever its flag says.
    fn close_last_batch(&self, size: u16, used_idx: u16) -> Result<(), RingError> {
        let batch = used_idx.wrapping_sub(self.region.u16(USED_IDX).load(Relaxed));
        if batch > size {
            return Err(RingError::Inflight("its used index is not the ring's"));
        }
        let mut head = self.region.u16(LAST_BATCH_HEAD).load(Relaxed);
        for _ in 0..batch {
            if head >= size {
                return Err(RingError::Inflight("the list of the last batch leaves the ring"));
            }
            self.region.u8(entry(head) + INFLIGHT).store(0, Release);
            head = self.region.u16(entry(head) + NEXT).load(Relaxed);
        }
        self.region.u16(USED_IDX).store(used_idx, Release);
        Ok(())
    }

    /// A head was taken off the available ring.
    #[inline]
    pub fn begin(&mut self, head: u16) {
        self.region.u64(entry(head) + COUNTER).store(self.counter, Relaxed);
        self.counter = self.counter.wrapping_add(1);
        self.region.u8(entry(head) + INFLIGHT).store(1, Release);
    }

    /// Just before the used index moves: the batch, as a list.
    #[inline]
    pub fn about_to_publish(&self, heads: &[u16]) {
        let mut last = self.region.u16(LAST_BATCH_HEAD).load(Relaxed);
        for &head in heads {
            self.region.u16(entry(head) + NEXT).store(last, Release);
            self.region.u16(LAST_BATCH_HEAD).store(head, Release);
            last = head;
        }
    }

    /// Just after it has moved.
    #[inline]
    pub fn published(&self, heads: &[u16], used_idx: u16) {
        for &head in heads {
            self.region.u8(entry(head) + INFLIGHT).store(0, Release);
        }
        self.region.u16(USED_IDX).store(used_idx, Release);
    }
}
